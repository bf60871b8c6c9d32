// A strip beside the grid, all of its time at a look: drag it, or go by its keys, to another month.

import { $, make, month } from "./dom.js";

export class Scrubber {
  constructor(grid) {
    this.grid = grid;
    this.strip = $("scrubber");
    this.thumb = $("scrubber-thumb");
    this.word = $("scrubber-word");
    this.years = $("scrubber-years");
    this.strip.addEventListener("pointerdown", (event) => {
      this.strip.setPointerCapture(event.pointerId);
      this.isHeld = true;
      this.to(event);
    });
    this.strip.addEventListener("pointermove", (event) => (this.isHeld ? this.to(event) : this.hint(event)));
    for (const end of ["pointerup", "pointercancel"]) this.strip.addEventListener(end, () => {
      this.isHeld = false;
      this.word.hidden = true;
    });
    this.strip.addEventListener("pointerleave", () => {
      if (!this.isHeld) this.word.hidden = true;
    });
    this.strip.addEventListener("keydown", (event) => this.key(event));
  }

  // The months that the grid has now.
  lay() {
    const { sections, height } = this.grid;
    this.strip.hidden = sections.length < 2 || !sections[0].name || height < innerHeight;
    if (this.strip.hidden) return;
    this.strip.setAttribute("aria-valuemax", sections.length - 1);
    const labels = [];
    let last = -1;
    let year = "";
    for (const section of sections) {
      if (section.name.slice(0, 4) === year) continue;
      year = section.name.slice(0, 4);
      const at = section.top / height;
      if (at - last < 0.045) continue;
      last = at;
      const label = make("span", "", year);
      label.style.top = `${100 * at}%`;
      labels.push(label);
    }
    this.years.replaceChildren(...labels);
    this.scrolled(scrollY - this.grid.offset());
  }

  scrolled(from) {
    if (this.strip.hidden) return;
    const { height, sections } = this.grid;
    const section = this.grid.sectionAtHeight(Math.max(0, from + 60));
    this.at = sections.indexOf(section);
    this.thumb.style.top = `${100 * Math.min(1, Math.max(0, from / Math.max(1, height)))}%`;
    this.strip.setAttribute("aria-valuenow", this.at);
    this.strip.setAttribute("aria-valuetext", `${month(section.name)}, ${section.count} pictures`);
  }

  share(event) {
    const box = this.strip.getBoundingClientRect();
    return Math.min(1, Math.max(0, (event.clientY - box.top) / box.height));
  }

  hint(event) {
    const share = this.share(event);
    this.word.textContent = month(this.grid.sectionAtHeight(share * this.grid.height).name);
    this.word.style.top = `${100 * share}%`;
    this.word.hidden = false;
  }

  to(event) {
    this.hint(event);
    scrollTo({ top: this.grid.offset() - 80 + this.share(event) * this.grid.height });
  }

  key(event) {
    const last = this.grid.sections.length - 1;
    const moves = { ArrowDown: this.at + 1, ArrowUp: this.at - 1, PageDown: this.at + 12, PageUp: this.at - 12, Home: 0, End: last };
    if (!(event.key in moves)) return;
    event.preventDefault();
    event.stopPropagation();
    const section = this.grid.sections[Math.min(last, Math.max(0, moves[event.key]))];
    scrollTo({ top: this.grid.offset() + section.top - 50 });
  }
}
