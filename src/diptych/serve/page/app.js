// The page of `diptych serve`: views of a library, each of them a link.

import { go, isSearch, nothingSought, onChange, read, request, tell, viewOf } from "./address.js";
import { Alike } from "./alike.js";
import { $, make, number, say, sentence, toast } from "./dom.js";
import { drawFacets } from "./facets.js";
import { Grid } from "./grid.js";
import { WorldMap } from "./map.js";
import { Namer } from "./name.js";
import { ask, call, Fault } from "./net.js";
import { taken } from "./pictures.js";
import { drawBox, drawLike, sayStatus, searchWith } from "./query.js";
import { Scrubber } from "./scrubber.js";
import { Shelf } from "./shelf.js";
import { Viewer } from "./viewer.js";

const TABS = { search: "Pictures", map: "Map", alike: "Duplicates", name: "Name it" };
const facts = { can_trash: false, is_local: false, libraries: [] };
let shown = null; // the view that the grid has
let version = null;
let asked = 0;
let scrubber = null;

const grid = new Grid({
  load: async (start, count) => {
    const answer = await ask("/library/view", { ...request(read()), start, count });
    if (answer.version !== version) setTimeout(again); // the library has changed meanwhile
    return answer.pictures;
  },
  open: (at) => go({ open: grid.facts(at).id }),
  like: (one) => moreLike(one),
  select: (at, event) => shelf.select(at, event),
  laid: () => scrubber?.lay(),
  scrolled: (_, from) => scrubber?.scrolled(from),
});
scrubber = new Scrubber(grid);
const shelf = new Shelf(grid, facts);
const alike = new Alike(shelf);
const map = new WorldMap();
const namer = new Namer();
const viewer = new Viewer({
  at: (place) => grid.fetched(place),
  total: () => grid.total,
  left: (place) => (place < 0 ? $("words").focus() : grid.focus(place)),
  hide: (ids) => shelf.hide(ids).then(() => viewer.leave()),
  album: (ids) => shelf.album(ids),
  sought: () => $("words").focus(),
});

// --- A view

shelf.changed = () => again();

function again() {
  shown = null;
  tell();
}

async function showView(at) {
  const wanted = viewOf(at);
  if (shown === wanted) return true;
  shown = wanted;
  const mine = ++asked;
  sayStatus(isSearch(at) ? "Searching …" : "");
  try {
    const answer = await ask("/library/view", { ...request(at), count: 200, spread: true });
    if (mine !== asked) return false; // a later question has gone out
    version = answer.version;
    grid.chosen.clear();
    shelf.drawBar();
    grid.set(answer.total, answer.spread.months, answer.pictures, isSearch(at));
    drawFacets(answer.spread, at);
    if (answer.liked) drawLike(answer.liked);
    told(at, answer);
    return true;
  } catch (error) {
    if (mine === asked) {
      shown = null;
      sayStatus(sentence(error), true);
    }
    return false;
  }
}

function told(at, answer) {
  const { total } = answer;
  const library = facts.libraries.find((one) => one.name === at.library) ?? facts.libraries[0];
  let counted = `${number(total)} ${total === 1 ? "picture" : "pictures"}`;
  if (!total && library && !library.pictures) counted = library.indexing ? "The library is being indexed: its first pictures are about to come" : "This library has no picture yet. Put some into its folder and start the server again, or start it with --watch";
  else if (!total) counted = "Nothing passes the filters";
  else if (isSearch(at)) counted += at.sort ? ", by date" : `, ${at.like ? (at.part ? "like a part of" : "like") : "best first"}${at.like ? ` ${answer.liked?.name ?? "a picture"}` : ""}`;
  sayStatus([counted, ...answer.unread.map(sentence)].join(". "));
  $("order").hidden = total < 2;
  $("sort").replaceChildren(...[...(isSearch(at) ? [["", "best first"]] : []), [isSearch(at) ? "latest" : "", "latest first"], ["oldest", "oldest first"]].map(([value, text]) => {
    const option = make("option", "", text);
    option.value = value;
    option.selected = (at.sort ?? "") === value;
    return option;
  }));
  $("save-search").hidden = !isSearch(at) && !answer.total;
}

async function showPicture(at) {
  if (!at.open) {
    if (viewer.isOpen) viewer.shut();
    return;
  }
  if (viewer.isOpen && viewer.facts.id === at.open) return;
  for (const [place, cell] of grid.cells) {
    if (cell.dataset.id === at.open) return viewer.open(place, grid.facts(place));
  }
  try {
    const { found } = await ask("/library/view", { ...request(at), count: 0, find: at.open });
    if (read().open !== at.open) return;
    if (!found) throw new Error("That picture is no longer in the library.");
    if (found.place >= 0) await grid.fetched(found.place);
    await viewer.open(found.place, grid.facts(found.place) ?? found.picture);
  } catch (error) {
    toast(sentence(error));
    go({ open: null }, { replace: true });
  }
}

function moreLike(one) {
  $("words").value = "";
  go({ ...nothingSought, like: one.id });
  scrollTo({ top: 0 });
  $("words").focus(); // what had the focus is gone
}

onChange(async (at) => {
  openTab(at.tab ?? "search");
  if ((at.tab ?? "search") === "name") return;
  drawBox(at);
  if (await showView(at)) await showPicture(at);
  if (at.tab === "map") map.load();
});

// --- Tabs

let opened = null;
function openTab(name) {
  for (const one of Object.keys(TABS)) {
    const isOpen = one === name;
    $(one).hidden = !isOpen;
    $(`tab-${one}`).setAttribute("aria-selected", isOpen);
    $(`tab-${one}`).tabIndex = isOpen ? 0 : -1;
  }
  const isNew = opened !== name;
  opened = name;
  document.body.dataset.tab = name;
  if (!isNew) return;
  if (name === "search") grid.lay();
  if (name === "alike") alike.load();
  if (name === "name" && !namer.pictures.length) say($("name-status"), "Add a picture to name it.");
}

const names = Object.keys(TABS);
for (const [i, name] of names.entries()) {
  $(`tab-${name}`).addEventListener("click", () => go({ tab: name === "search" ? null : name, open: null }));
  $(`tab-${name}`).addEventListener("keydown", (event) => {
    const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!by) return;
    const other = names.at((i + by) % names.length);
    if ($(`tab-${other}`).hidden) return;
    go({ tab: other === "search" ? null : other, open: null });
    $(`tab-${other}`).focus();
  });
}

// --- Pictures that come in

async function take(files) {
  if (!files.length) return;
  if (!$("name").hidden) return namer.add(files);
  try {
    sayStatus("Reading the picture …");
    await searchWith(await taken(files[0]));
  } catch (error) {
    sayStatus(sentence(error), true);
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
  take([...event.dataTransfer.files]);
});
addEventListener("paste", (event) => {
  if (event.clipboardData.files.length) take([...event.clipboardData.files]);
});
for (const id of ["query-file", "name-file"]) {
  $(id).addEventListener("change", (event) => {
    take([...event.target.files]);
    event.target.value = ""; // the same file may come again
  });
}

// --- Buttons and keys

$("sort").addEventListener("change", () => go({ sort: $("sort").value }));
$("library").addEventListener("change", () => {
  history.pushState(null, "", `?${new URLSearchParams({ library: $("library").value })}`);
  shelf.load();
  tell();
});
for (const name of ["after", "before", "min_side"]) {
  document.querySelector(`[name=${name}]`).addEventListener("change", (event) => go({ [name]: event.target.value, open: null }));
}

addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented) return;
  if (document.querySelector("dialog[open]:not(#viewer)")) return;
  if (viewer.isOpen) return viewer.key(event);
  if (event.target.closest("input:not(.choose), textarea, select") || $("search").hidden) return;
  if (event.key === "/") {
    event.preventDefault();
    $("words").focus();
    return;
  }
  if (event.key === "Escape" && grid.chosen.size) return shelf.none();
  const at = grid.focused();
  if (at < 0) return;
  const next = grid.step_(event.key, at);
  if (next !== undefined) {
    event.preventDefault();
    const to = Math.min(grid.total - 1, Math.max(0, next));
    grid.focus(to);
    if (event.shiftKey) shelf.range(Math.min(at, to), Math.max(at, to));
  }
  if (event.key === "m" && grid.facts(at)) moreLike(grid.facts(at));
  if (event.key === "x") shelf.select(at);
});

// What a button asked for in vain is said, whichever it was.
addEventListener("unhandledrejection", (event) => {
  if (!(event.reason instanceof Fault)) return;
  event.preventDefault();
  toast(sentence(event.reason));
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
  map.draw();
});

// --- The start

const TURN = 3000; // ms between looks at what is indexed
const REST = 5000;

async function look() {
  try {
    const now = await ask("/library");
    Object.assign(facts, now);
    const [first] = now.libraries;
    const mine = now.libraries.find((one) => one.name === read().library) ?? first;
    const busy = now.libraries.find((one) => one.indexing);
    const bar = $("progress");
    $("away").hidden = !mine || mine.is_there;
    bar.hidden = !busy;
    if (busy) {
      bar.querySelector("span").textContent = busy.of ? `Indexing ${busy.name}: ${number(busy.done)} of ${number(busy.of)} files` : `Indexing ${busy.name} …`;
      bar.querySelector("progress").max = busy.of || 1;
      if (busy.of) bar.querySelector("progress").value = busy.done;
      else bar.querySelector("progress").removeAttribute("value");
    }
    const isOld = (mine && version !== null && version !== mine.version) || (look.busy && !busy);
    if (isOld && scrollY < 200 && !viewer.isOpen && !grid.chosen.size) again(); // nothing is moved under a hand
    look.busy = Boolean(busy);
    say($("about"), `${look.model} · ${number(now.libraries.reduce((sum, one) => sum + one.pictures, 0))} pictures`);
    setTimeout(look, busy ? TURN : REST);
  } catch {
    setTimeout(look, REST); // the next search says what is wrong
  }
}

(async () => {
  // At once: what is typed from here on is not lost. A phone has no keys, and help that opens with the box would lie over
  // the filters.
  if (!read().tab && !read().open && matchMedia("(min-width: 641px)").matches) $("words").focus();
  try {
    const health = call("/health").then((answer) => answer.json()); // it runs the model, which nothing else waits for
    health.catch(() => {});
    Object.assign(facts, await ask("/library"));
    if (!facts.libraries.length) {
      for (const one of ["search", "map", "alike"]) $(`tab-${one}`).hidden = true;
      openTab("name");
      const { model } = await health;
      namer.suit(model);
      say($("about"), `${model} · no library`);
      return;
    }
    $("library").hidden = facts.libraries.length < 2;
    $("library").replaceChildren(...facts.libraries.map(({ name }) => {
      const option = make("option", "", name);
      option.value = name;
      option.selected = name === read().library;
      return option;
    }));
    $("its-place").hidden = !facts.is_local;
    shelf.drawBar();
    if (matchMedia("(min-width: 900px)").matches) $("filters").open = true;
    tell();
    shelf.load();
    look.model = (await health).model;
    namer.suit(look.model);
    look();
  } catch (error) {
    sayStatus(sentence(error), true);
  }
})();

