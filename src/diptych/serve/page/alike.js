// Pictures that look the same, side by side: the best is proposed, the others go to an album, are hidden or to the trash.

import { read } from "./address.js";
import { $, button, make, number, say, sentence, size } from "./dom.js";
import { ask, here } from "./net.js";

const PAGE = 20;

export class Alike {
  constructor(shelf) {
    this.shelf = shelf;
    this.asked = 0;
    $("threshold").addEventListener("change", () => this.load());
    $("alike-more").addEventListener("click", () => this.load(this.start + PAGE));
    $("alike-all-hide").addEventListener("click", () => this.every((ids) => shelf.hide(ids)));
    $("alike-all-album").addEventListener("click", () => this.every((ids) => shelf.album(ids)));
    $("alike-all-trash").addEventListener("click", () => this.every((ids) => shelf.trash(ids)));
  }

  async load(start = 0) {
    this.start = start;
    const number_ = ++this.asked;
    const status = $("alike-status");
    const threshold = Number($("threshold").value);
    $("threshold-value").textContent = threshold.toFixed(3);
    if (!start) $("groups").replaceChildren();
    $("alike-all-trash").hidden = !this.shelf.facts.can_trash;
    say(status, "Comparing all pictures …");
    try {
      for (;;) {
        const answer = await ask("/library/alike", { threshold, start, count: PAGE, library: read().library ?? "" });
        if (number_ !== this.asked || $("alike").hidden) return;
        if (answer.ready) {
          this.draw(answer);
          return;
        }
        await new Promise((done) => setTimeout(done, 700));
      }
    } catch (error) {
      if (number_ === this.asked) say(status, sentence(error), true);
    }
  }

  draw({ total, groups }) {
    $("groups").append(...groups.map((group) => this.group(group)));
    say($("alike-status"), total ? `${number(total)} ${total === 1 ? "group" : "groups"} of pictures that look the same. The best of each is kept.` : "No two pictures look the same.");
    $("alike-more").hidden = this.start + PAGE >= total;
    $("alike-acts").hidden = !$("groups").children.length;
  }

  group(copies) {
    const item = make("li", "group");
    const list = make("ul", "copies");
    list.append(...copies.map((facts, i) => this.copy(facts, i === 0, item)));
    const acts = make("div", "acts");
    acts.append(
      button("", "Others: hide", () => this.act(item, (ids) => this.shelf.hide(ids))),
      button("", "Others: to an album", () => this.act(item, (ids) => this.shelf.album(ids))),
    );
    if (this.shelf.facts.can_trash) acts.append(button("", "Others: to the trash", () => this.act(item, (ids) => this.shelf.trash(ids))));
    item.append(list, acts);
    return item;
  }

  copy(facts, isBest, group) {
    const item = make("li", isBest ? "copy best" : "copy");
    item.dataset.id = facts.id;
    const keep = make("button", "pick");
    keep.type = "button";
    keep.setAttribute("aria-pressed", String(isBest));
    keep.setAttribute("aria-label", `Keep ${facts.name}`);
    const image = make("img");
    image.alt = facts.name;
    image.loading = "lazy";
    image.src = here(facts.thumbnail);
    keep.append(image, make("span", "word", "keep"));
    keep.addEventListener("click", () => {
      for (const other of group.querySelectorAll(".copy")) {
        other.classList.toggle("best", other === item);
        other.querySelector(".pick").setAttribute("aria-pressed", String(other === item));
      }
    });
    const told = [`${number(facts.width)} × ${number(facts.height)}`, size(facts.bytes), `sharpness ${facts.sharpness.toFixed(1)}`, facts.has_sidecar ? "sidecar" : "", facts.score < 0.9999 ? `cosine ${facts.score.toFixed(3)}` : "", facts.also.length ? `also ${facts.also.join(", ")}` : ""];
    const anchor = make("a", "file");
    anchor.dataset.view = "";
    anchor.href = `?${new URLSearchParams({ ...(read().library ? { library: read().library } : {}), open: facts.id })}`;
    anchor.append(make("bdi", "", facts.name));
    item.append(keep, anchor, make("p", "told", told.filter(Boolean).join(" · ")));
    return item;
  }

  others(group) {
    return [...group.querySelectorAll(".copy:not(.best)")].map((one) => one.dataset.id);
  }

  async act(group, work) {
    if (!(await work(this.others(group)))) return; // the question was answered with no
    const next = [...$("groups").children].find((one) => one !== group && !one.classList.contains("done"));
    if (group.contains(document.activeElement)) (next?.querySelector(".acts button") ?? $("tab-alike")).focus();
    group.classList.add("done");
  }

  async every(work) {
    const groups = [...$("groups").children].filter((group) => !group.classList.contains("done"));
    if (!(await work(groups.flatMap((group) => this.others(group))))) return;
    for (const group of groups) group.classList.add("done");
  }
}
