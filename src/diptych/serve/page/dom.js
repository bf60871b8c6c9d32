// Small things that all parts of the page share.

export const $ = (id) => document.getElementById(id);

export function make(tag, classes, text) {
  const element = document.createElement(tag);
  if (classes) element.className = classes;
  if (text !== undefined) element.textContent = text; // never as HTML: file names may hold anything
  return element;
}

export function button(classes, text, work, label) {
  const element = make("button", classes, text);
  element.type = "button";
  if (label) {
    element.setAttribute("aria-label", label);
    element.title = label;
  }
  element.addEventListener("click", work);
  return element;
}

export function say(element, text, isBad = false) {
  element.textContent = text;
  element.classList.toggle("bad", isBad);
}

export function sentence({ message }) {
  return message.charAt(0).toUpperCase() + message.slice(1);
}

export function later(work, milliseconds) {
  let timer;
  return (...all) => {
    clearTimeout(timer);
    timer = setTimeout(() => work(...all), milliseconds);
  };
}

// Of two fingers, each a pointer event.
export const distance = ([a, b]) => Math.hypot(a.clientX - b.clientX, a.clientY - b.clientY);

export const number = (value) => value.toLocaleString("en");

export function size(bytes) {
  const units = ["bytes", "kB", "MB", "GB"];
  let at = 0;
  while (bytes >= 1000 && at < 3) {
    bytes /= 1000;
    at += 1;
  }
  return `${bytes >= 100 || !at ? Math.round(bytes) : bytes.toFixed(1)} ${units[at]}`;
}

const MONTHS = ["January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November", "December"];

export function month(text) {
  return `${MONTHS[Number(text.slice(5, 7)) - 1]} ${text.slice(0, 4)}`;
}

// A word that passes by: what was done, where nothing else shows it.
let fading;
export function toast(text) {
  const place = $("toast");
  // A dialog, and what fills the screen, lie over all that is not in them.
  (document.fullscreenElement ?? document.querySelector("dialog[open]") ?? document.body).append(place);
  place.textContent = text;
  place.hidden = false;
  clearTimeout(fading);
  fading = setTimeout(() => {
    place.hidden = true;
  }, 4000);
}

export function save(name, blob) {
  const link = make("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

export async function copy(text, what) {
  try {
    await navigator.clipboard.writeText(text);
    toast(`${what} copied.`);
  } catch { // not over plain HTTP from another machine
    const field = make("textarea");
    field.value = text;
    (document.querySelector("dialog[open]") ?? document.body).append(field);
    field.select();
    const done = document.execCommand("copy");
    field.remove();
    toast(done ? `${what} copied.` : "This browser does not let a page copy.");
  }
}

// Ask for a word, or for a yes. Null when it is left.
export function ask(question, { value = null, yes = "OK", choices = [] } = {}) {
  return new Promise((done) => {
    const dialog = $("asked");
    $("asked-question").textContent = question;
    $("asked-value").hidden = value === null;
    $("asked-value").required = value !== null;
    $("asked-value").value = value ?? "";
    $("asked-choices").replaceChildren(...choices.map((choice) => {
      const option = make("option");
      option.value = choice;
      return option;
    }));
    $("asked-yes").textContent = yes;
    dialog.returnValue = "";
    dialog.showModal();
    dialog.addEventListener("close", () => {
      done(dialog.returnValue === "yes" ? $("asked-value").value.trim() || true : null);
    }, { once: true });
  });
}
