// One picture, large: zoom, swipe, full screen, its facts, the file itself, and more like it or like a part of it.

import { go, link, nothingSought, read } from "./address.js";
import { $, copy, distance, make, number, save, size, toast } from "./dom.js";
import { ask, here, show } from "./net.js";

const DEEPEST = 12; // times the size that fits

export class Viewer {
  // on: at(place) gives facts, total(), left(place) gives the focus back, select(facts), shelf.
  constructor(on) {
    this.on = on;
    this.dialog = $("viewer");
    this.image = $("large");
    this.film = $("film");
    this.stage = $("viewed");
    this.place = -1;
    this.image.addEventListener("error", () => toast("This picture cannot be shown: its file is gone, or cannot be read."));
    this.reset();
    this.buttons();
    this.pointers();
  }

  get isOpen() {
    return this.dialog.open;
  }

  // --- Which picture

  async open(place, facts) {
    this.place = place;
    this.facts = facts;
    this.reset();
    this.drawing(false);
    this.image.alt = facts.name;
    $("why").hidden = !this.words() || facts.is_video;
    $("why").setAttribute("aria-pressed", "false");
    this.film.hidden = !facts.is_video;
    this.image.hidden = facts.is_video;
    if (facts.is_video) this.play(facts);
    else {
      this.film.removeAttribute("src");
      this.sharp = false;
      show(this.image, facts.picture);
    }
    this.tell(facts);
    $("previous").disabled = place <= 0;
    $("next").disabled = place < 0 || place >= this.on.total() - 1;
    if (this.isOpen) return;
    this.dialog.showModal();
    this.dialog.focus(); // not its first button, which Enter would press, nor a film that is hidden
  }

  play(facts) {
    this.film.poster = here(facts.picture);
    this.film.src = here(facts.original);
    this.film.setAttribute("aria-label", facts.name);
    if (facts.time !== null) this.film.addEventListener("loadedmetadata", () => {
      this.film.currentTime = facts.time;
    }, { once: true });
    this.film.onerror = () => toast("This browser does not play the video. Download it instead.");
  }

  tell(facts) {
    const score = facts.score === null ? "" : `score ${facts.score.toFixed(3)}`;
    // Each by itself, as a name may turn the direction of what is written after it.
    const shown = [facts.name, facts.width ? `${facts.width} × ${facts.height}` : "", score].filter(Boolean).map((fact) => make("bdi", "", fact));
    $("facts").replaceChildren(...shown.flatMap((fact, i) => (i ? [" · ", fact] : [fact])));
    const rows = [
      [facts.is_taken ? "Taken" : "File of", facts.when],
      ["Camera", facts.camera],
      ["Place", facts.place && `${facts.place.map((part) => part.toFixed(4)).join(", ")}${facts.country ? `, ${facts.country}` : ""}`],
      ["Size", `${facts.width ? `${number(facts.width)} × ${number(facts.height)} px, ` : ""}${size(facts.bytes)}`],
      ["Found at", facts.time === null ? null : `${facts.time.toFixed(1)} s`],
    ];
    $("details").replaceChildren(...rows.filter(([, value]) => value).flatMap(([name, value]) => [make("dt", "", name), make("dd", "", value)]));
    const folder = facts.name.split("/").slice(0, -1).join("/");
    $("its-folder").hidden = !folder;
    $("its-folder").href = link({ ...nothingSought, folder });
    $("its-folder").textContent = `In ${folder}`;
    $("its-original").href = here(facts.original);
    const download = here(facts.original);
    $("its-download").href = `${download}${download.includes("?") ? "&" : "?"}download=true`;
    $("its-download").download = facts.name.split("/").pop();
  }

  words() {
    return read().q ?? "";
  }

  async step(by) {
    const place = this.place + by;
    const facts = this.place < 0 ? undefined : await this.on.at(place);
    if (facts && this.isOpen) go({ open: facts.id }, { replace: true });
  }

  // Not on the event "close", which comes late: a key pressed before it would act on the picture that was opened.
  leave() {
    const { place } = this;
    this.shut();
    go({ open: null });
    this.on.left(place);
  }

  shut() {
    if (document.fullscreenElement) document.exitFullscreen();
    this.film.pause();
    this.film.removeAttribute("src");
    document.body.append($("toast")); // what it says is not over with the dialog
    this.dialog.close();
  }

  // --- Near and far

  reset() {
    this.scale = 1;
    this.x = 0;
    this.y = 0;
    this.move();
  }

  move() {
    const limit = (this.scale - 1) / 2;
    const { width, height } = this.stage.getBoundingClientRect();
    this.x = Math.min(limit * width, Math.max(-limit * width, this.x));
    this.y = Math.min(limit * height, Math.max(-limit * height, this.y));
    this.image.style.transform = this.scale === 1 ? "" : `translate(${this.x}px, ${this.y}px) scale(${this.scale})`;
    this.stage.classList.toggle("near", this.scale > 1);
  }

  zoom(factor, event) {
    if (this.image.hidden || this.isDrawing) return;
    const box = this.stage.getBoundingClientRect();
    const [dx, dy] = event ? [event.clientX - box.left - box.width / 2, event.clientY - box.top - box.height / 2] : [0, 0];
    const scale = Math.min(DEEPEST, Math.max(1, this.scale * factor));
    const by = scale / this.scale;
    this.x = dx - (dx - this.x) * by;
    this.y = dy - (dy - this.y) * by;
    this.scale = scale;
    this.move();
    // From here on the file itself shows more than the copy that was drawn of it.
    if (scale > 1.5 && !this.sharp && Math.max(this.facts.width, this.facts.height) > 1600 && $("why").getAttribute("aria-pressed") === "false") {
      this.sharp = true;
      const sharper = new Image();
      const { facts } = this;
      sharper.onload = () => {
        if (this.facts === facts && this.sharp) this.image.src = sharper.src;
      };
      sharper.src = here(facts.original); // a kind that the browser does not show changes nothing
    }
  }

  pointers() {
    const held = new Map();
    let start = null;
    let apart = 0;
    const begin = (event) => {
      start = { x: event.clientX, y: event.clientY, byX: this.x, byY: this.y };
    };
    this.stage.addEventListener("pointerdown", (event) => {
      if (event.target.closest("video, button") || event.button) return;
      this.stage.setPointerCapture(event.pointerId);
      held.set(event.pointerId, event);
      begin(event);
      if (held.size === 2) apart = distance([...held.values()]);
      if (this.isDrawing) this.draw(start, event);
    });
    this.stage.addEventListener("pointermove", (event) => {
      if (!held.has(event.pointerId)) return;
      held.set(event.pointerId, event);
      if (this.isDrawing) {
        this.draw(start, event);
      } else if (held.size === 2) {
        const [a, b] = [...held.values()];
        const now = distance([a, b]);
        if (apart) this.zoom(now / apart, { clientX: (a.clientX + b.clientX) / 2, clientY: (a.clientY + b.clientY) / 2 });
        apart = now;
      } else if (this.scale > 1) {
        this.x = start.byX + event.clientX - start.x;
        this.y = start.byY + event.clientY - start.y;
        this.move();
      }
    });
    const end = (event) => {
      if (!held.delete(event.pointerId)) return;
      const wasPinch = apart > 0;
      if (held.size < 2) apart = 0;
      if (wasPinch && held.size === 1) begin([...held.values()][0]); // the finger that stays moves it on from there
      if (event.type === "pointercancel" || wasPinch) return;
      if (this.isDrawing) return this.drawn(start, event);
      const dx = event.clientX - start.x;
      const dy = event.clientY - start.y;
      if (this.scale === 1 && Math.abs(dx) > 60 && Math.abs(dx) > 2 * Math.abs(dy)) this.step(dx < 0 ? 1 : -1);
      else if (this.scale === 1 && dy > 120 && dy > 2 * Math.abs(dx)) this.leave();
    };
    this.stage.addEventListener("pointerup", end);
    this.stage.addEventListener("pointercancel", end);
    this.stage.addEventListener("wheel", (event) => {
      event.preventDefault();
      this.zoom(Math.exp(-event.deltaY / 300), event);
    }, { passive: false });
    this.stage.addEventListener("dblclick", (event) => {
      if (event.target.closest("video")) return;
      if (this.scale > 1) this.reset();
      else this.zoom(3, event);
    });
  }

  // --- A part of it

  drawing(isOn) {
    this.isDrawing = isOn;
    $("part").setAttribute("aria-pressed", String(isOn));
    this.stage.classList.toggle("drawing", isOn);
    $("frame").hidden = true;
    if (isOn) {
      this.reset();
      toast("Draw a frame around what you look for.");
    }
  }

  // Where the picture itself lies within the element, which is larger.
  picture() {
    const box = this.image.getBoundingClientRect();
    const scale = Math.min(box.width / this.image.naturalWidth, box.height / this.image.naturalHeight);
    const width = this.image.naturalWidth * scale;
    const height = this.image.naturalHeight * scale;
    return { left: box.left + (box.width - width) / 2, top: box.top + (box.height - height) / 2, width, height };
  }

  draw(start, event) {
    const box = this.stage.getBoundingClientRect();
    const frame = $("frame");
    frame.hidden = false;
    frame.style.left = `${Math.min(start.x, event.clientX) - box.left}px`;
    frame.style.top = `${Math.min(start.y, event.clientY) - box.top}px`;
    frame.style.width = `${Math.abs(event.clientX - start.x)}px`;
    frame.style.height = `${Math.abs(event.clientY - start.y)}px`;
  }

  drawn(start, event) {
    const box = this.picture();
    const share = (value) => Math.min(1, Math.max(0, value));
    const xs = [start.x, event.clientX].sort((a, b) => a - b).map((x) => share((x - box.left) / box.width));
    const ys = [start.y, event.clientY].sort((a, b) => a - b).map((y) => share((y - box.top) / box.height));
    this.drawing(false);
    if (xs[1] - xs[0] < 0.03 || ys[1] - ys[0] < 0.03) return toast("That frame is too small: draw it anew.");
    this.like([xs[0], ys[0], xs[1], ys[1]].map((value) => value.toFixed(3)).join(","));
  }

  like(part = null) {
    const words = $("like-words").value.trim();
    $("like-words").value = "";
    const { id } = this.facts;
    this.shut();
    $("words").value = words;
    go({ ...nothingSought, like: id, part, q: words });
    this.on.sought();
  }

  // --- What can be done

  buttons() {
    $("previous").addEventListener("click", () => this.step(-1));
    $("next").addEventListener("click", () => this.step(1));
    $("why").addEventListener("click", () => this.why());
    $("close").addEventListener("click", () => this.leave());
    $("like-form").addEventListener("submit", (event) => {
      event.preventDefault();
      this.like();
    });
    $("part").addEventListener("click", () => this.drawing(!this.isDrawing));
    $("nearer").addEventListener("click", () => this.zoom(1.6));
    $("farther").addEventListener("click", () => this.zoom(1 / 1.6));
    $("full").addEventListener("click", () => this.full());
    $("its-folder").addEventListener("click", () => this.shut());
    $("its-path").addEventListener("click", async () => {
      const { paths } = await ask("/library/paths", { ids: [this.facts.id], library: read().library ?? "" });
      copy(paths[0], "Path");
    });
    $("its-place").addEventListener("click", () => ask(`/library/${this.facts.id}/reveal`, {}));
    $("its-hide").addEventListener("click", () => this.on.hide([this.facts.id]));
    $("its-album").addEventListener("click", () => this.on.album([this.facts.id]));
    this.dialog.addEventListener("cancel", (event) => {
      event.preventDefault();
      if (this.isDrawing) this.drawing(false);
      else this.leave();
    });
    this.dialog.addEventListener("click", (event) => {
      if (event.target === this.dialog) this.leave(); // beside the picture
    });
  }

  // Not the dialog itself: no browser lets one fill the screen.
  full() {
    if (document.fullscreenElement) document.exitFullscreen();
    else $("viewing").requestFullscreen?.().catch(() => toast("This browser does not let a page fill the screen."));
  }

  why() {
    const wanted = $("why").getAttribute("aria-pressed") === "false";
    $("why").setAttribute("aria-pressed", String(wanted));
    this.sharp = true;
    if (wanted) show(this.image, `/library/${this.facts.id}/why`, { text: this.words() });
    else show(this.image, this.facts.picture);
  }

  key(event) {
    if (event.target.closest("input, video:not([hidden])")) return;
    const work = {
      ArrowLeft: () => this.step(-1),
      ArrowRight: () => this.step(1),
      "+": () => this.zoom(1.6),
      "=": () => this.zoom(1.6),
      "-": () => this.zoom(1 / 1.6),
      0: () => this.reset(),
      f: () => this.full(),
      m: () => this.like(),
      p: () => this.drawing(!this.isDrawing),
      d: () => $("its-download").click(),
    }[event.key];
    if (work) {
      event.preventDefault();
      work();
    }
  }
}

export function saveList(name, lines) {
  save(name, new Blob([`${lines.join("\n")}\n`], { type: "text/plain" }));
}
