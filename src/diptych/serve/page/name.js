// Pictures and labels: which label fits each best, or none of them.

import { $, later, make, save, say, sentence } from "./dom.js";
import { ask } from "./net.js";
import { taken } from "./pictures.js";

const SETS = {
  photo: {
    labels: ["a dog", "a cat", "a car", "food on a plate", "a beach", "a person", "a building", "flowers"],
    templates: ["a photo of {}.", "{}", "a close-up photo of {}.", "a blurry photo of {}.", "a drawing of {}."],
  },
  pictogram: {
    labels: ["a red apple", "a sailboat", "a crying face", "something else"],
    templates: ["{}", "a picture of {}", "a drawing of {}."],
  },
};
const MOST = 50; // pictures

export class Namer {
  constructor() {
    this.pictures = []; // name, data, labels once they are known
    this.asked = 0;
    const soon = later(() => this.ask(), 300);
    for (const id of ["labels", "template"]) $(id).addEventListener("input", soon);
    $("none").addEventListener("input", () => this.draw());
    $("name-csv").addEventListener("click", () => this.csv());
    $("name-clear").addEventListener("click", () => {
      this.pictures = [];
      this.draw();
      say($("name-status"), "Add a picture to name it.");
    });
    $("drop").addEventListener("keydown", (event) => {
      if (event.key === "Enter" || event.key === " ") {
        event.preventDefault();
        $("name-file").click();
      }
    });
  }

  // What suits the model: one of photos is not asked for a crying face.
  suit(model) {
    const set = /pictogram/.test(model) ? SETS.pictogram : SETS.photo;
    $("labels").value = set.labels.join("\n");
    $("template").value = set.templates[0];
    $("templates").replaceChildren(...set.templates.map((text) => {
      const option = make("option");
      option.value = text;
      return option;
    }));
  }

  async add(files) {
    for (const file of [...files].slice(0, MOST - this.pictures.length)) {
      try {
        this.pictures.push({ name: file.name, data: await taken(file), labels: null });
      } catch (error) {
        say($("name-status"), sentence(error), true);
      }
    }
    this.ask();
  }

  labels() {
    return [...new Set($("labels").value.split("\n").map((line) => line.trim()).filter(Boolean))];
  }

  async ask() {
    const labels = this.labels();
    const status = $("name-status");
    if (!this.pictures.length) return say(status, "Add a picture to name it.");
    if (!labels.length) return say(status, "Type at least one label.");
    const number = ++this.asked;
    const templates = $("template").value.split("|").map((text) => text.trim()).filter(Boolean);
    try {
      let unread = [];
      for (const picture of this.pictures) {
        const answer = await ask("/classify", { image: picture.data, labels, templates: templates.length ? templates : ["{}"] });
        if (number !== this.asked) return;
        picture.labels = answer.labels;
        unread = answer.unread;
        this.draw();
      }
      const alone = labels.length === 1 ? ["One label alone says nothing: add what else it could be."] : [];
      say(status, [...alone, ...unread.map(sentence)].join(" "));
    } catch (error) {
      if (number !== this.asked) return;
      for (const picture of this.pictures) picture.labels = null;
      this.draw();
      say(status, sentence(error), true);
    }
  }

  get least() {
    return Number($("none").value) / 100;
  }

  draw() {
    $("none-value").textContent = `${$("none").value} %`;
    const done = this.pictures.filter((picture) => picture.labels);
    const isOne = this.pictures.length === 1;
    $("name-picture").hidden = !isOne;
    if (isOne) $("name-picture").src = this.pictures[0].data;
    $("bars").replaceChildren(...(isOne && done.length ? [...this.none(done[0]), ...done[0].labels.map(bar)] : []));
    $("named").replaceChildren(...(isOne ? [] : done.map((picture) => this.row(picture))));
    $("name-acts").hidden = !done.length;
  }

  isNone({ labels }) {
    return labels[0].probability < this.least;
  }

  none(picture) {
    return this.isNone(picture) ? [make("li", "none", "None of these: no label reaches the threshold.")] : [];
  }

  row(picture) {
    const item = make("li");
    const image = make("img");
    image.alt = "";
    image.src = picture.data;
    const best = picture.labels[0];
    const told = make("div");
    told.append(make("bdi", "file", picture.name), make("strong", "", this.isNone(picture) ? "none of these" : best.label), make("span", "score", `${best.label} ${percent(best.probability)}`));
    item.append(image, told);
    return item;
  }

  csv() {
    const labels = this.labels();
    const field = (text) => (/[",\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);
    const lines = [["picture", "label", ...labels].map(field).join(",")];
    for (const picture of this.pictures.filter((one) => one.labels)) {
      const shares = Object.fromEntries(picture.labels.map((one) => [one.label, one.probability]));
      const best = this.isNone(picture) ? "none of these" : picture.labels[0].label;
      lines.push([picture.name, best, ...labels.map((label) => (shares[label] ?? 0).toFixed(6))].map(field).join(","));
    }
    save("labels.csv", new Blob([`${lines.join("\n")}\n`], { type: "text/csv" }));
  }
}

const percent = (share) => `${(100 * share).toFixed(1)} %`;

function bar({ label, probability }) {
  const item = make("li");
  const row = make("div", "row");
  row.append(make("bdi", "", label), make("span", "", percent(probability)));
  const track = make("div", "track");
  const fill = make("div", "fill");
  fill.style.width = `${100 * probability}%`;
  track.append(fill);
  item.append(row, track);
  return item;
}
