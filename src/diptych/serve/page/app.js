"use strict";
// The page of `diptych serve`. Talks to its own server alone; the server's policy allows nothing else.

const $ = (id) => document.getElementById(id);
const PAGE = 24; // results shown at first, and added by "Show more"
const MOST = 200;
const state = { picture: null, like: null, results: [], count: PAGE, at: 0, asked: 0, named: 0, namePicture: null, words: "" };

// --- Talking to the server

// Paths go from where the page itself lies, so that it works below a path of a proxy's.
async function call(path, body) {
  path = path.replace(/^\/+/, "");
  for (let attempt = 0; ; attempt++) {
    const key = sessionStorage.getItem("key");
    const headers = key ? { Authorization: `Bearer ${key}` } : {};
    if (body) headers["Content-Type"] = "application/json";
    let answer;
    try {
      answer = await fetch(path, { method: body ? "POST" : "GET", headers, body: body && JSON.stringify(body) });
    } catch {
      throw new Error("The server does not answer. Is it still running?");
    }
    if (answer.ok) return answer;
    if (answer.status === 401 && attempt < 5) {
      await askKey();
    } else if (answer.status === 429 && attempt < 3) {
      await new Promise((done) => setTimeout(done, 1000 * (Number(answer.headers.get("Retry-After")) || 1)));
    } else {
      const fault = await answer.json().catch(() => null);
      throw new Error(fault?.error?.message || `The server answered ${answer.status}.`);
    }
  }
}

let asking = null;
function askKey() {
  asking ??= new Promise((done) => {
    const dialog = $("locked");
    dialog.showModal();
    dialog.addEventListener("close", () => {
      // What no header can hold is no key either, and would stop every request before it goes out.
      const key = $("key").value.trim();
      sessionStorage.setItem("key", /^[\x21-\x7e]+$/.test(key) ? key : "");
      $("key").value = "";
      asking = null;
      done();
    }, { once: true });
  });
  return asking;
}

// Through `call`, as an <img> of its own would send no key.
async function show(image, path, asked) {
  const wanted = asked ? `${path} ${JSON.stringify(asked)}` : path;
  image.dataset.path = wanted;
  image.removeAttribute("src"); // or it would stand beside the name of the next one until that comes, if it does
  try {
    const blob = await (await call(path, asked)).blob();
    if (image.dataset.path !== wanted) return;
    image.src = URL.createObjectURL(blob);
    image.addEventListener("load", () => URL.revokeObjectURL(image.src), { once: true });
  } catch {
    if (image.dataset.path === wanted) image.alt = "no picture";
  }
}

function readPicture(file) {
  return new Promise((done, fail) => {
    const reader = new FileReader();
    reader.onload = () => done(reader.result);
    reader.onerror = () => fail(new Error("The file cannot be read."));
    reader.readAsDataURL(file);
  });
}

function say(element, text, isBad = false) {
  element.textContent = text;
  element.classList.toggle("bad", isBad);
}

function sentence({ message }) {
  return message.charAt(0).toUpperCase() + message.slice(1);
}

function make(tag, classes, text) {
  const element = document.createElement(tag);
  if (classes) element.className = classes;
  if (text !== undefined) element.textContent = text; // never as HTML: file names may hold anything
  return element;
}

// --- Search

function question() {
  const fields = Object.fromEntries(new FormData($("ask")));
  const filters = {};
  for (const name of ["folder", "after", "before", "camera"]) if (fields[name]) filters[name] = fields[name].trim();
  if (fields.min_side) filters.min_side = Number(fields.min_side);
  const asked = { count: state.count, filters };
  if (state.like) return { ...asked, like: state.like.id };
  const words = $("words").value.trim();
  if (words) asked.text = words;
  if (state.picture) asked.image = state.picture;
  if (fields.without.trim()) asked.without = fields.without.trim();
  return asked;
}

async function search() {
  const asked = question();
  const status = $("search-status");
  if (!asked.text && !asked.image && !asked.like) {
    say(status, "Type words or add a picture to search.");
    return;
  }
  const number = ++state.asked;
  say(status, "Searching …");
  try {
    const answer = await (await call("/search", asked)).json();
    if (number !== state.asked) return; // a later question has gone out
    state.results = answer.results;
    state.words = asked.text || "";
    draw();
    const found = answer.results.length;
    const what = state.like ? `like ${state.like.name}` : "best first";
    const counted = found ? `${found} ${found === 1 ? "picture" : "pictures"}, ${what}` : "Nothing passes the filters";
    say(status, [counted, ...answer.unread.map(sentence)].join(". "));
  } catch (error) {
    if (number === state.asked) say(status, sentence(error), true);
  }
}

function newSearch() {
  state.count = PAGE;
  state.like = null;
  search();
}

function draw() {
  const list = $("results");
  const known = new Map([...list.children].map((item) => [item.dataset.id, item]));
  list.replaceChildren(...state.results.map((result, i) => known.get(result.id) || card(result)));
  [...list.children].forEach((item, i) => {
    item.querySelector(".score").textContent = state.results[i].score.toFixed(3);
  });
  $("more").hidden = state.results.length < state.count || state.count >= MOST;
}

function card(result) {
  const item = make("li");
  item.dataset.id = result.id;
  const open = make("button", "open");
  open.type = "button";
  const image = make("img");
  image.alt = result.name;
  open.append(image);
  open.addEventListener("click", () => view(place(result.id)));
  const caption = make("div", "caption");
  const file = make("bdi", "file", result.name.split("/").pop());
  file.title = result.name;
  const score = make("span", "score", result.score.toFixed(3));
  score.title = "cosine with what was looked for";
  const like = make("button", "quiet like", "more like it");
  like.type = "button";
  like.setAttribute("aria-label", `More like ${result.name}`);
  like.addEventListener("click", () => moreLike(result));
  caption.append(file, score, like);
  item.append(open, caption);
  show(image, result.thumbnail);
  return item;
}

const place = (id) => state.results.findIndex((result) => result.id === id);

function moreLike(result) {
  $("viewer").close();
  state.like = result;
  state.count = PAGE;
  $("words").value = "";
  setPicture(null);
  search();
  scrollTo({ top: 0 });
}

function setPicture(data) {
  state.picture = data;
  $("query-picture").hidden = !data;
  if (data) $("query-picture").querySelector("img").src = data;
}

// --- The viewer

function view(i) {
  if (!(i in state.results)) return;
  state.at = i;
  const result = state.results[i];
  $("large").alt = result.name;
  $("why").hidden = !state.words || result.time !== null;
  $("why").setAttribute("aria-pressed", "false");
  show($("large"), result.picture);
  const facts = [result.name, result.width ? `${result.width} × ${result.height}` : "", result.taken, result.camera];
  if (result.time !== null) facts.push(`at ${Math.round(result.time)} s`);
  // Each by itself, as a name may turn the direction of what is written after it.
  const shown = [...facts.filter(Boolean), `score ${result.score.toFixed(3)}`].map((fact) => make("bdi", "", fact));
  $("facts").replaceChildren(...shown.flatMap((fact, i) => (i ? [" · ", fact] : [fact])));
  $("previous").disabled = i === 0;
  $("next").disabled = i === state.results.length - 1;
  if (!$("viewer").open) $("viewer").showModal();
}

function why() {
  const result = state.results[state.at];
  const wanted = $("why").getAttribute("aria-pressed") === "false";
  $("why").setAttribute("aria-pressed", String(wanted));
  if (wanted) show($("large"), result.picture.replace(/picture$/, "why"), { text: state.words });
  else show($("large"), result.picture);
}

// Not on the event "close", which comes late: a key pressed before it would act on the picture the viewer was opened at.
function leave() {
  $("viewer").close();
  $("results").children[state.at]?.querySelector(".open").focus();
}

// --- Name it

const nameSoon = later(nameIt, 300);

function later(work, milliseconds) {
  let timer;
  return () => {
    clearTimeout(timer);
    timer = setTimeout(work, milliseconds);
  };
}

async function nameIt() {
  const labels = [...new Set($("labels").value.split("\n").map((line) => line.trim()).filter(Boolean))];
  const status = $("name-status");
  if (!state.namePicture) return say(status, "Add a picture to name it.");
  if (!labels.length) return say(status, "Type at least one label.");
  const number = ++state.named;
  try {
    const asked = { image: state.namePicture, labels, templates: [$("template").value.trim() || "{}"] };
    const answer = await (await call("/classify", asked)).json();
    if (number !== state.named) return;
    $("bars").replaceChildren(...answer.labels.map(bar));
    const alone = labels.length === 1 ? ["One label alone says nothing: add what else it could be."] : [];
    say(status, [...alone, ...answer.unread.map(sentence)].join(" "));
  } catch (error) {
    if (number !== state.named) return;
    $("bars").replaceChildren();
    say(status, sentence(error), true);
  }
}

function bar({ label, probability }) {
  const item = make("li");
  const row = make("div", "row");
  row.append(make("bdi", "", label), make("span", "", `${(100 * probability).toFixed(1)} %`));
  const track = make("div", "track");
  const fill = make("div", "fill");
  fill.style.width = `${100 * probability}%`;
  track.append(fill);
  item.append(row, track);
  return item;
}

// --- Pictures that come in by drop, paste or file

async function take(file) {
  if (!file) return;
  const isSearch = !$("search").hidden;
  try {
    const data = await readPicture(file);
    if (isSearch) {
      setPicture(data);
      newSearch();
    } else {
      state.namePicture = data;
      $("name-picture").src = data;
      $("name-picture").hidden = false;
      nameIt();
    }
  } catch (error) {
    say($(isSearch ? "search-status" : "name-status"), sentence(error), true);
  }
}

addEventListener("dragover", (event) => {
  event.preventDefault();
  document.body.classList.add("dragging");
});
addEventListener("dragleave", (event) => {
  if (!event.relatedTarget) document.body.classList.remove("dragging");
});
addEventListener("drop", (event) => {
  event.preventDefault();
  document.body.classList.remove("dragging");
  take(event.dataTransfer.files[0]);
});
addEventListener("paste", (event) => {
  if (event.clipboardData.files.length) take(event.clipboardData.files[0]);
});
for (const id of ["query-file", "name-file"]) {
  $(id).addEventListener("change", (event) => {
    take(event.target.files[0]);
    event.target.value = ""; // the same file may come again
  });
}

// --- Buttons, tabs and keys

function openTab(name) {
  for (const one of ["search", "name"]) {
    const isOpen = one === name;
    $(one).hidden = !isOpen;
    $(`tab-${one}`).setAttribute("aria-selected", isOpen);
    $(`tab-${one}`).tabIndex = isOpen ? 0 : -1;
  }
  if (name === "name" && !state.namePicture) say($("name-status"), "Add a picture to name it.");
}

for (const name of ["search", "name"]) {
  $(`tab-${name}`).addEventListener("click", () => openTab(name));
  $(`tab-${name}`).addEventListener("keydown", (event) => {
    if (event.key !== "ArrowLeft" && event.key !== "ArrowRight") return;
    const other = name === "search" ? "name" : "search";
    openTab(other);
    $(`tab-${other}`).focus();
  });
}

$("ask").addEventListener("submit", (event) => {
  event.preventDefault();
  newSearch();
});
$("ask").addEventListener("reset", () => setTimeout(() => {
  if (state.results.length) search();
}));
$("filters").addEventListener("change", () => {
  state.count = PAGE;
  if (state.results.length || state.like) search();
});
$("query-picture").querySelector("button").addEventListener("click", () => {
  setPicture(null);
  if ($("words").value.trim()) newSearch();
});
$("more").addEventListener("click", () => {
  state.count = Math.min(state.count + PAGE, MOST);
  search();
});
$("labels").addEventListener("input", nameSoon);
$("template").addEventListener("input", nameSoon);
$("drop").addEventListener("keydown", (event) => {
  if (event.key === "Enter" || event.key === " ") {
    event.preventDefault();
    $("name-file").click();
  }
});
$("previous").addEventListener("click", () => view(state.at - 1));
$("next").addEventListener("click", () => view(state.at + 1));
$("why").addEventListener("click", why);
$("close").addEventListener("click", leave);
$("like").addEventListener("click", () => moreLike(state.results[state.at]));
$("viewer").addEventListener("cancel", (event) => {
  event.preventDefault();
  leave();
});
$("viewer").addEventListener("click", (event) => {
  if (event.target === $("viewer")) leave(); // beside the picture
});

addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if ($("viewer").open) {
    if (event.key === "ArrowLeft") view(state.at - 1);
    if (event.key === "ArrowRight") view(state.at + 1);
    if (event.key === "m") moreLike(state.results[state.at]);
    return;
  }
  if (event.target.closest("input, textarea, dialog") || $("search").hidden) return;
  if (event.key === "/") {
    event.preventDefault();
    $("words").focus();
    return;
  }
  const cards = [...$("results").children];
  const at = cards.findIndex((item) => item.contains(document.activeElement));
  if (at < 0) return;
  const columns = getComputedStyle($("results")).gridTemplateColumns.split(" ").length;
  const step = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns, ArrowDown: columns }[event.key];
  if (step && cards[at + step]) {
    event.preventDefault();
    cards[at + step].querySelector(".open").focus();
  }
  if (event.key === "m") moreLike(state.results[at]);
});

// --- Light and dark

function paint(theme) {
  if (theme) document.documentElement.dataset.theme = theme;
}
paint(localStorage.getItem("theme"));
$("theme").addEventListener("click", () => {
  const now = document.documentElement.dataset.theme
    || (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");
  const other = now === "dark" ? "light" : "dark";
  localStorage.setItem("theme", other);
  paint(other);
});

// --- The start

function tell(health) {
  const pictures = health.library === null ? "no library" : `${health.library.toLocaleString("en")} pictures`;
  $("about").textContent = `${health.model} · ${pictures}${health.indexing ? ", indexing …" : ""}`;
  if (health.indexing) {
    setTimeout(async () => {
      try {
        tell(await (await call("/health")).json());
      } catch {
        // The next search says what is wrong.
      }
    }, 2000);
  }
}

(async () => {
  try {
    const health = await (await call("/health")).json();
    tell(health);
    if (health.library === null) {
      openTab("name");
      say($("search-status"), "This server has no library. Start it with --library FOLDER to search.");
    } else {
      $("words").focus();
    }
  } catch (error) {
    say($("search-status"), sentence(error), true);
  }
})();
