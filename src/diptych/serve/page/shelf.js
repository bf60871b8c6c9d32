// Many pictures at once, albums, searches that are kept, and pictures that are hidden.

import { go, link, read } from "./address.js";
import { $, ask as question, button, copy, make, number, save, toast } from "./dom.js";
import { ask, here } from "./net.js";

const MOST = 5_000; // of one request

export class Shelf {
  constructor(grid, facts) {
    this.grid = grid;
    this.facts = facts; // of the libraries: can_trash, is_local
    this.kept = { saved: [], albums: [], hidden: 0 };
    this.bar = $("selected");
    for (const [id, work] of [
      ["sel-zip", () => this.zip()],
      ["sel-paths", () => this.paths()],
      ["sel-album", () => this.album(this.ids())],
      ["sel-out", () => this.out()],
      ["sel-hide", () => this.hide(this.ids())],
      ["sel-trash", () => this.trash()],
      ["sel-all", () => this.all()],
      ["sel-none", () => this.none()],
      ["save-search", () => this.save()],
    ]) $(id).addEventListener("click", work);
  }

  library() {
    return { library: read().library ?? "" };
  }

  ids() {
    return [...this.grid.chosen];
  }

  // --- Choosing

  select(at, event = {}) {
    const facts = this.grid.facts(at);
    if (!facts) return;
    if (event.shiftKey && this.last !== undefined) {
      const [low, high] = [this.last, at].sort((a, b) => a - b);
      this.range(low, high);
    } else if (!this.grid.chosen.delete(facts.id)) {
      this.grid.chosen.add(facts.id);
    }
    this.last = at;
    this.drawBar();
  }

  async range(low, high) {
    for (let at = low; at <= high && this.grid.chosen.size < MOST; at++) {
      const facts = await this.grid.fetched(at);
      if (facts) this.grid.chosen.add(facts.id);
    }
    this.drawBar();
  }

  async all() {
    await this.range(0, Math.min(this.grid.total, MOST) - 1);
    if (this.grid.total > MOST) toast(`The first ${number(MOST)} are selected: more do not go at once.`);
  }

  none() {
    this.grid.chosen.clear();
    this.drawBar();
    this.last = undefined;
  }

  drawBar() {
    const count = this.grid.chosen.size;
    if (!count && this.bar.contains(document.activeElement)) this.grid.focus(this.last ?? this.grid.at);
    this.bar.hidden = !count;
    $("sel-count").textContent = `${number(count)} selected`;
    $("sel-out").hidden = !read().album;
    $("sel-hide").textContent = read().hidden ? "Show again" : "Hide";
    $("sel-trash").hidden = !this.facts.can_trash;
    document.body.classList.toggle("choosing", count > 0);
    this.grid.place();
  }

  // --- Doing

  async zip(body = { ids: this.ids() }) {
    const { path } = await ask("/library/zip", { ...body, ...this.library() });
    const anchor = make("a");
    anchor.href = here(path);
    anchor.download = "pictures.zip";
    anchor.click();
  }

  async paths(body = { ids: this.ids() }) {
    const { paths } = await ask("/library/paths", { ...body, ...this.library() });
    copy(paths.join("\n"), paths.length === 1 ? "1 path" : `${number(paths.length)} paths`);
  }

  async album(ids) {
    const name = await question(`Add ${ids.length === 1 ? "the picture" : `${number(ids.length)} pictures`} to an album:`, { value: read().album ?? "", yes: "Add", choices: this.kept.albums.map((album) => album.name) });
    if (!name || name === true) return false;
    this.draw(await ask("/library/shelf/album", { name, add: ids, ...this.library() }));
    toast(`Added to ${name}.`);
    this.none();
    this.changed?.();
    return true;
  }

  async out() {
    this.draw(await ask("/library/shelf/album", { name: read().album, remove: this.ids(), ...this.library() }));
    this.none();
    this.changed?.();
  }

  // Those that are hidden already, in the view of them, are shown again.
  async hide(ids) {
    const isBack = Boolean(read().hidden) && !read().tab;
    const body = isBack ? { show: ids } : { hide: ids };
    this.draw(await ask("/library/shelf/hidden", { ...body, ...this.library() }));
    toast(`${ids.length === 1 ? "The picture is" : `${number(ids.length)} pictures are`} ${isBack ? "shown again" : "hidden; the files stay where they are"}.`);
    this.none();
    this.changed?.();
    return true;
  }

  async trash(ids = this.ids()) {
    const what = ids.length === 1 ? "this picture" : `these ${number(ids.length)} pictures`;
    if (!(await question(`Move ${what} to the system's trash?`, { yes: "To the trash" }))) return false;
    const { moved, faults } = await ask("/library/trash", { ids, ...this.library() });
    toast(`${number(moved)} moved to the trash.${faults.length ? ` ${faults[0]}` : ""}`);
    this.none();
    this.changed?.();
    return true;
  }

  // --- What is kept

  async load() {
    this.draw(await ask("/library/shelf", this.library()));
  }

  async save() {
    const at = read();
    const name = await question("Keep this search as:", { value: at.q ?? "", yes: "Keep" });
    if (!name || name === true) return;
    this.draw(await ask("/library/shelf/search", { name, link: link({ open: null }).slice(1), ...this.library() }));
    toast(`Kept as ${name}.`);
  }

  draw(kept) {
    this.kept = kept;
    const groups = [];
    if (kept.saved.length) groups.push(this.group("Saved searches", kept.saved.map(({ name, link: parts }) => this.line(name, null, `?${parts}`, () => this.forgetSearch(name)))));
    if (kept.albums.length) groups.push(this.group("Albums", kept.albums.map(({ name, pictures }) => this.line(name, pictures, `?${new URLSearchParams({ ...this.named(), album: name })}`, () => this.forgetAlbum(name), () => this.exportAlbum(name)))));
    if (kept.hidden) groups.push(this.group("Hidden", [this.line("Hidden pictures", kept.hidden, `?${new URLSearchParams({ ...this.named(), hidden: "1" })}`)]));
    $("shelf").replaceChildren(...groups);
  }

  named() {
    const { library } = read();
    return library ? { library } : {};
  }

  group(title, lines) {
    const part = make("section", "facet");
    const list = make("ul");
    list.append(...lines);
    part.append(make("h2", "", title), list);
    return part;
  }

  line(name, count, href, forget, take) {
    const item = make("li");
    const anchor = make("a");
    anchor.dataset.view = "";
    anchor.href = href;
    anchor.append(make("bdi", "", name));
    if (count !== null) anchor.append(make("span", "count", number(count)));
    item.append(anchor);
    if (take) item.append(button("quiet tiny", "↓", take, `Download the list of ${name}`));
    if (forget) item.append(button("quiet tiny", "×", forget, `Forget ${name}`));
    return item;
  }

  async exportAlbum(name) {
    const { paths } = await ask("/library/paths", { album: name, ...this.library() });
    save(`${name}.txt`, new Blob([`${paths.join("\n")}\n`], { type: "text/plain" }));
  }

  async forgetSearch(name) {
    if (!(await question(`Forget the search “${name}”?`, { yes: "Forget" }))) return;
    this.draw(await ask("/library/shelf/search", { name, link: "", ...this.library() }));
  }

  async forgetAlbum(name) {
    if (!(await question(`Forget the album “${name}”? Its pictures stay.`, { yes: "Forget" }))) return;
    this.draw(await ask("/library/shelf/album", { name, forget: true, ...this.library() }));
    if (read().album === name) go({ album: null });
    else this.changed?.();
  }
}
