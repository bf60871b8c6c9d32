// The box: how what stands in it is read, which words the model does not know, and what else is searched with.

import { go, nothingSought, read } from "./address.js";
import { $, later, make, say, sentence } from "./dom.js";
import { ask, here } from "./net.js";

let asked = 0;
let drawn = read().q ?? ""; // words of the address that the box has got
$("words").value = drawn;
let preview = null; // of a picture that was dropped in this tab: the server keeps its features alone

export function submit() {
  const at = read();
  const words = $("words").value.trim();
  if (!words && !at.like && !at.picture) go({ ...nothingSought });
  else go({ q: words, open: null, sort: at.sort ?? null });
}

// The box as the address has it.
export function drawBox(at) {
  const words = at.q ?? "";
  if (words !== drawn && $("words").value.trim() !== words) $("words").value = words; // else it is being typed in
  drawn = words;
  const chip = $("query-picture");
  chip.hidden = !at.like && !at.picture;
  if (!chip.hidden) {
    const image = chip.querySelector("img");
    chip.classList.toggle("bare", !at.like && !preview);
    if (at.like) {
      if (image.dataset.id !== at.like) image.removeAttribute("src"); // until the view tells where it is
    } else if (preview) image.src = preview;
    else image.removeAttribute("src");
    image.dataset.id = at.like ?? "";
    image.alt = at.part ? "a part of a picture, to search with" : "the picture to search with";
  }
  readQuery();
}

export function drawLike(facts) {
  $("query-picture").querySelector("img").src = here(facts.thumbnail);
}

export async function searchWith(data) {
  preview = data;
  const { picture } = await ask("/library/pictures", { image: data });
  go({ ...nothingSought, picture, q: $("words").value.trim() });
}

async function readQuery() {
  const query = $("words").value;
  const place = $("terms");
  const number = ++asked;
  if (!query.trim()) {
    place.replaceChildren();
    return;
  }
  let answer;
  try {
    answer = await ask("/library/query", { query: query.slice(0, 1000), library: read().library ?? "" });
  } catch {
    return;
  }
  if (number !== asked) return;
  const isPlain = answer.terms.length === 1 && answer.terms[0].weight === 1 && !answer.terms[0].is_picture;
  const hasUnknown = answer.terms.some((term) => term.unknown.length);
  if (answer.fault) place.replaceChildren(make("span", "bad", sentence({ message: answer.fault })));
  else if (isPlain && !hasUnknown) place.replaceChildren();
  else place.replaceChildren(...answer.terms.map(term));
}

const readSoon = later(readQuery, 250);

function term({ weight, text, is_picture: isPicture, unknown }) {
  const chip = make("span", `term ${weight < 0 ? "minus" : ""}`);
  const sign = weight < 0 ? "− " : "+ ";
  const times = Math.abs(weight) === 1 ? "" : `${Math.abs(weight)} × `;
  chip.append(sign + times + (isPicture ? "picture " : ""));
  for (const part of text.split(/(\s+)/)) {
    const isUnknown = unknown.includes(part);
    const word = make(isUnknown ? "mark" : "bdi", "", part);
    if (isUnknown) {
      word.title = "The model does not know this word.";
      word.append(make("span", "sr", " (not known to the model)"));
    }
    chip.append(word);
  }
  return chip;
}

$("words").addEventListener("input", () => {
  readSoon();
});
$("ask").addEventListener("submit", (event) => {
  event.preventDefault();
  submit();
});
$("words").addEventListener("search", () => {
  if (!$("words").value && read().q) submit(); // its own × was pressed
});
$("query-picture").querySelector("button").addEventListener("click", () => go({ like: null, part: null, picture: null, open: null }));
for (const [id, text] of [["help-minus", " - "], ["help-plus", " + "], ["help-times", " + 2 * "]]) {
  $(id).addEventListener("click", () => {
    const box = $("words");
    box.value = `${box.value.trim() ? `${quoted(box.value.trim())}` : '"words"'}${text}"words"`;
    box.focus();
    box.setSelectionRange(box.value.length - 6, box.value.length - 1);
    readSoon();
  });
}

const quoted = (text) => (/["*]|^\S+\.\w+$/.test(text) || / [+-] /.test(text) ? text : `"${text}"`);

export function sayStatus(text, isBad = false) {
  say($("search-status"), text, isBad);
}
