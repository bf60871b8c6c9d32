// A grid of any number of pictures, of which only those near the window are there. Rows come in pages as they are needed.

import { $, make, month } from "./dom.js";
import { here } from "./net.js";

const PAGE = 100; // pictures of one request
const PAGES = 60; // kept
const GAP = 6; // px
const HEAD = 46; // px, of a month
const CAPTION = 60; // px, below a picture that was found
const OVER = 500; // px beyond the window that are there too
const FAST = 1200; // px between two frames: pictures that fly by are not fetched

export class Grid {
  // load(start, count) gives facts; make the page's own handlers known by `on`: open(at), like(facts), select(at, event).
  constructor(on) {
    this.on = on;
    this.list = $("results");
    this.stage = $("grid");
    this.heads = $("months");
    this.cells = new Map(); // by place
    this.spare = [];
    this.titles = new Map();
    this.pages = new Map();
    this.waiting = new Set();
    this.chosen = new Set(); // ids
    this.at = 0; // the place that keys move from
    this.total = 0;
    this.sections = [];
    this.generation = 0;
    addEventListener("scroll", () => this.soon(), { passive: true });
    new ResizeObserver(() => this.lay()).observe(this.stage);
  }

  // Another view: how many pictures, of which months, and the first of them.
  set(total, months, first, hasCaptions) {
    const held = this.focused();
    this.generation += 1;
    this.total = total;
    this.months = months;
    this.hasCaptions = hasCaptions;
    this.pages.clear();
    this.waiting.clear();
    this.at = 0;
    this.keep(0, first);
    this.clear();
    this.lay();
    // What had the focus is another cell now, or went: the picture that stands there gets it.
    if (held >= 0 && total) this.focus(Math.min(held, total - 1));
    else if (held >= 0) $("words").focus();
  }

  clear() {
    for (const cell of this.cells.values()) cell.remove();
    for (const title of this.titles.values()) title.remove();
    this.cells.clear();
    this.titles.clear();
    this.spare = [];
  }

  keep(start, rows) {
    for (let at = 0; at < rows.length; at += PAGE) this.pages.set((start + at) / PAGE, rows.slice(at, at + PAGE));
    while (this.pages.size > PAGES) this.pages.delete(this.pages.keys().next().value);
  }

  facts(at) {
    return this.pages.get(Math.floor(at / PAGE))?.[at % PAGE];
  }

  // The facts of a place, fetched when they are not here.
  async fetched(at) {
    if (at < 0 || at >= this.total) return undefined;
    if (!this.facts(at)) await this.fetch(Math.floor(at / PAGE));
    return this.facts(at);
  }

  async fetch(page) {
    if (this.waiting.has(page)) return new Promise((done) => setTimeout(done, 50)).then(() => this.waiting.has(page) ? this.fetch(page) : undefined);
    const generation = this.generation;
    this.waiting.add(page);
    try {
      const rows = await this.on.load(page * PAGE, PAGE);
      if (generation === this.generation) this.keep(page * PAGE, rows);
    } catch {
      return; // the next search says what is wrong
    } finally {
      if (generation === this.generation) this.waiting.delete(page);
    }
    if (generation === this.generation) this.soon();
  }

  // --- Where everything lies

  lay() {
    const width = this.stage.clientWidth;
    if (!width || !this.months) return;
    const wanted = width < 560 ? (this.hasCaptions ? 150 : 105) : this.hasCaptions ? 190 : 170;
    this.columns = Math.max(2, Math.floor((width + GAP) / (wanted + GAP)));
    this.side = (width - GAP * (this.columns - 1)) / this.columns;
    this.step = this.side + GAP + (this.hasCaptions ? CAPTION : 0);
    const parts = this.months.length ? this.months : [["", this.total]];
    let top = 0;
    let start = 0;
    this.sections = parts.filter(([, count]) => count).map(([name, count]) => {
      const head = name ? HEAD : 0;
      const section = { name, start, count, top, head };
      top += head + Math.ceil(count / this.columns) * this.step;
      start += count;
      return section;
    });
    this.height = top;
    this.stage.style.height = `${top}px`;
    this.place();
    this.on.laid?.(this);
  }

  section(at) {
    let low = 0;
    let high = this.sections.length - 1;
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      if (this.sections[middle].start <= at) low = middle;
      else high = middle - 1;
    }
    return this.sections[low];
  }

  sectionAtHeight(y) {
    let low = 0;
    let high = this.sections.length - 1;
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      if (this.sections[middle].top <= y) low = middle;
      else high = middle - 1;
    }
    return this.sections[low];
  }

  top(at) {
    const section = this.section(at);
    return section ? section.top + section.head + Math.floor((at - section.start) / this.columns) * this.step : 0;
  }

  offset() {
    return this.stage.getBoundingClientRect().top + scrollY;
  }

  // --- What is there

  soon() {
    this.frame ??= requestAnimationFrame(() => {
      this.frame = null;
      this.place();
    });
  }

  place() {
    if (!this.sections.length) {
      this.clear();
      return;
    }
    const from = scrollY - this.offset();
    const isFast = Math.abs(from - (this.before ?? from)) > FAST;
    this.before = from;
    const low = from - OVER;
    const high = from + innerHeight + OVER;
    const wanted = new Set();
    const titles = new Set();
    for (let i = this.sections.indexOf(this.sectionAtHeight(Math.max(0, low))); i < this.sections.length; i++) {
      const section = this.sections[i];
      if (section.top > high) break;
      if (section.head) titles.add(i);
      const inside = section.top + section.head;
      const first = Math.max(0, Math.floor((low - inside) / this.step)) * this.columns;
      const last = Math.min(section.count, (Math.floor((high - inside) / this.step) + 1) * this.columns);
      for (let at = first; at < last; at++) wanted.add(section.start + at);
    }
    const focused = [...this.cells].find(([, cell]) => cell.contains(document.activeElement))?.[0];
    if (focused !== undefined) wanted.add(focused); // or the keys would lose their place
    for (const [at, cell] of this.cells) {
      if (!wanted.has(at)) {
        this.cells.delete(at);
        this.spare.push(cell);
      }
    }
    for (const at of wanted) if (!this.cells.has(at)) this.cells.set(at, this.spare.pop() ?? this.cell());
    for (const cell of this.spare) this.empty(cell);
    for (const [at, cell] of this.cells) this.fill(at, cell, isFast);
    this.head(titles);
    clearTimeout(this.tidying);
    this.tidying = setTimeout(() => this.tidy(), 150);
    if (isFast) {
      clearTimeout(this.settling);
      this.settling = setTimeout(() => this.place(), 90);
    } else {
      const pages = new Set([...wanted].filter((at) => !this.facts(at)).map((at) => Math.floor(at / PAGE)));
      for (const page of pages) if (!this.waiting.has(page)) this.fetch(page);
    }
    this.on.scrolled?.(this, from);
  }

  // In the document they stand as they are seen, for whoever has it read aloud; the one with the focus is not moved.
  tidy() {
    const cells = [...this.cells].sort(([a], [b]) => a - b).map(([, cell]) => cell);
    const held = cells.findIndex((cell) => cell.contains(document.activeElement));
    for (const cell of cells.slice(0, Math.max(0, held))) this.list.insertBefore(cell, cells[held]);
    this.list.append(...cells.slice(held + 1), ...this.spare);
  }

  head(titles) {
    for (const [i, title] of this.titles) {
      if (!titles.has(i) || title.dataset.name !== this.sections[i].name) {
        title.remove();
        this.titles.delete(i);
      }
    }
    for (const i of titles) {
      const section = this.sections[i];
      let title = this.titles.get(i);
      if (!title) {
        title = make("h2", "month", month(section.name));
        title.dataset.name = section.name;
        this.titles.set(i, title);
        this.heads.append(title);
      }
      title.style.transform = `translateY(${section.top}px)`;
    }
  }

  cell() {
    const item = make("li");
    const open = make("button", "open");
    open.type = "button";
    const image = make("img");
    image.alt = "";
    image.decoding = "async";
    image.draggable = false;
    open.append(image);
    const choose = make("input", "choose");
    choose.type = "checkbox";
    choose.tabIndex = -1;
    const badge = make("span", "badge");
    const caption = make("div", "caption");
    const file = make("bdi", "file");
    const score = make("span", "score");
    score.title = "cosine with what was looked for";
    const like = make("button", "quiet like", "more like it");
    like.type = "button";
    caption.append(file, score, like);
    item.append(open, badge, choose, caption);
    open.addEventListener("click", (event) => this.clicked(item, event));
    choose.addEventListener("click", (event) => this.on.select(Number(item.dataset.at), event));
    like.addEventListener("click", () => this.on.like(this.facts(Number(item.dataset.at))));
    this.list.append(item);
    return item;
  }

  clicked(item, event) {
    const at = Number(item.dataset.at);
    if (!this.facts(at)) return;
    this.at = at;
    if (this.chosen.size || event.shiftKey || event.ctrlKey || event.metaKey) this.on.select(at, event);
    else this.on.open(at);
  }

  empty(cell) {
    if (cell.hidden) return;
    cell.hidden = true;
    cell.dataset.at = "";
    cell.dataset.id = "";
    cell.querySelector("img").removeAttribute("src"); // what still loads is not needed any more
  }

  fill(at, cell, isFast) {
    const section = this.section(at);
    const column = (at - section.start) % this.columns;
    if (cell.dataset.at !== String(at)) {
      this.empty(cell);
      cell.hidden = false;
      cell.dataset.at = at;
      cell.setAttribute("aria-setsize", this.total);
      cell.setAttribute("aria-posinset", at + 1);
    }
    cell.style.transform = `translate(${column * (this.side + GAP)}px, ${this.top(at)}px)`;
    cell.style.width = `${this.side}px`;
    cell.style.height = `${this.step - GAP}px`;
    const open = cell.firstChild;
    open.tabIndex = at === this.at ? 0 : -1;
    const facts = this.facts(at);
    if (!facts) return;
    const isNew = cell.dataset.id !== facts.id;
    const image = open.firstChild;
    if (isNew) {
      cell.dataset.id = facts.id;
      const name = facts.name.split("/").pop();
      image.alt = facts.name;
      const [, badge, choose, caption] = cell.children;
      badge.textContent = facts.is_video ? "▶" : "";
      choose.setAttribute("aria-label", `Select ${facts.name}`);
      caption.hidden = !this.hasCaptions;
      if (this.hasCaptions) {
        caption.children[0].textContent = name;
        caption.children[0].title = facts.name;
        caption.children[1].textContent = facts.score === null ? "" : facts.score.toFixed(3);
        caption.children[2].setAttribute("aria-label", `more like it: ${facts.name}`);
        caption.children[2].tabIndex = -1;
      }
    }
    cell.children[2].checked = this.chosen.has(facts.id);
    cell.classList.toggle("chosen", this.chosen.has(facts.id));
    if (!isFast && !image.hasAttribute("src")) image.src = here(facts.thumbnail);
  }

  // --- Moving

  show(at) {
    const y = this.top(at) + this.offset();
    const under = document.querySelector(".asking").getBoundingClientRect().height + 8;
    if (y < scrollY + under) scrollTo({ top: y - under });
    else if (y + this.step > scrollY + innerHeight) scrollTo({ top: y + this.step - innerHeight + 8 });
    this.at = at;
    this.place();
  }

  focus(at) {
    if (at < 0 || at >= this.total) return;
    this.show(at);
    if (!this.cells.has(at)) {
      this.cells.set(at, this.spare.pop() ?? this.cell());
      this.fill(at, this.cells.get(at), false);
    }
    this.cells.get(at).firstChild.focus({ preventScroll: true });
  }

  // The place a key leads to; undefined for other keys.
  step_(key, at) {
    const section = this.section(at);
    const column = (at - section.start) % this.columns;
    if (key === "ArrowLeft") return at - 1;
    if (key === "ArrowRight") return at + 1;
    if (key === "Home") return 0;
    if (key === "End") return this.total - 1;
    const rows = key.startsWith("Page") ? Math.max(1, Math.floor(innerHeight / this.step) - 1) : 1;
    if (key === "ArrowDown" || key === "PageDown") {
      const next = at + rows * this.columns;
      if (next < section.start + section.count) return next;
      const following = this.sections[this.sections.indexOf(section) + 1];
      return following ? following.start + Math.min(column, following.count - 1) : this.total - 1;
    }
    if (key === "ArrowUp" || key === "PageUp") {
      const next = at - rows * this.columns;
      if (next >= section.start) return next;
      const previous = this.sections[this.sections.indexOf(section) - 1];
      if (!previous) return key === "PageUp" ? 0 : at;
      const lastRow = Math.floor((previous.count - 1) / this.columns) * this.columns;
      return previous.start + Math.min(lastRow + column, previous.count - 1);
    }
    return undefined;
  }

  focused() {
    const cell = document.activeElement?.closest?.("#results li");
    return cell ? Number(cell.dataset.at) : -1;
  }
}
