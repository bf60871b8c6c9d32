// Pictures where they were taken, on an outline of the world that comes with the page.

import { go, read, request } from "./address.js";
import { $, distance, number, say, sentence } from "./dom.js";
import { ask, here } from "./net.js";

const DEEPEST = 4096; // times the whole world
const NEAR = 34; // px within which spots are drawn as one

export class WorldMap {
  constructor() {
    this.canvas = $("world");
    this.spots = [];
    this.scale = 1;
    this.centre = [10, 20]; // longitude, latitude
    new ResizeObserver(() => this.draw()).observe(this.canvas);
    this.pointers();
    $("map-in").addEventListener("click", () => this.zoom(2));
    $("map-out").addEventListener("click", () => this.zoom(0.5));
    $("map-only").addEventListener("click", () => this.only());
    this.canvas.addEventListener("keydown", (event) => this.key(event));
  }

  async load() {
    const asked = request(read());
    delete asked.area;
    say($("map-status"), "Looking for places …");
    try {
      this.world ??= await (await fetch("page/world.json")).json();
      const { spots } = await ask("/library/spots", asked);
      this.spots = spots;
      const count = spots.reduce((sum, spot) => sum + spot[2], 0);
      say($("map-status"), count ? `${number(count)} ${count === 1 ? "picture tells" : "pictures tell"} where they were taken.` : "No picture of this view tells where it was taken.");
      this.fit();
    } catch (error) {
      say($("map-status"), sentence(error), true);
    }
  }

  // All spots in the window.
  fit() {
    if (this.spots.length) {
      const [south, north] = [Math.min(...this.spots.map((s) => s[0])), Math.max(...this.spots.map((s) => s[0]))];
      const [west, east] = [Math.min(...this.spots.map((s) => s[1])), Math.max(...this.spots.map((s) => s[1]))];
      this.centre = [(west + east) / 2, (south + north) / 2];
      this.scale = Math.min(DEEPEST, Math.max(1, 0.8 * Math.min(360 / Math.max(east - west, 0.01), 180 / Math.max(north - south, 0.01))));
      if (this.scale > 64) this.scale = 64;
    }
    this.draw();
  }

  // Pixels of a degree: equal on both axes, as an outline needs no more.
  get step() {
    return (this.canvas.clientWidth / 360) * this.scale;
  }

  toPixels(longitude, latitude) {
    return [this.canvas.clientWidth / 2 + (longitude - this.centre[0]) * this.step, this.canvas.clientHeight / 2 - (latitude - this.centre[1]) * this.step];
  }

  toPlace(x, y) {
    return [this.centre[0] + (x - this.canvas.clientWidth / 2) / this.step, this.centre[1] - (y - this.canvas.clientHeight / 2) / this.step];
  }

  draw() {
    const { clientWidth: width, clientHeight: height } = this.canvas;
    if (!width || !this.world) return;
    const ratio = devicePixelRatio || 1;
    this.canvas.width = width * ratio;
    this.canvas.height = height * ratio;
    const pen = this.canvas.getContext("2d");
    pen.scale(ratio, ratio);
    const style = getComputedStyle(document.documentElement);
    const colour = (name) => style.getPropertyValue(name).trim();
    pen.fillStyle = colour("--paper");
    pen.fillRect(0, 0, width, height);
    pen.fillStyle = colour("--track");
    pen.strokeStyle = colour("--line");
    pen.lineWidth = 1;
    const [west, north] = this.toPlace(0, 0);
    const [east, south] = this.toPlace(width, height);
    for (const rings of Object.values(this.world)) {
      for (const ring of rings) {
        let [low, high, left, right] = [Infinity, -Infinity, Infinity, -Infinity];
        for (let i = 0; i < ring.length; i += 2) {
          left = Math.min(left, ring[i]);
          right = Math.max(right, ring[i]);
          low = Math.min(low, ring[i + 1]);
          high = Math.max(high, ring[i + 1]);
        }
        if (right < west * 100 || left > east * 100 || high < south * 100 || low > north * 100) continue;
        pen.beginPath();
        for (let i = 0; i < ring.length; i += 2) {
          const [x, y] = this.toPixels(ring[i] / 100, ring[i + 1] / 100);
          if (i && Math.abs(ring[i] - ring[i - 2]) < 18_000) pen.lineTo(x, y);
          else pen.moveTo(x, y); // over the date line
        }
        pen.fill();
        pen.stroke();
      }
    }
    this.groups = this.gathered();
    for (const group of this.groups) {
      const radius = 9 + 4 * Math.log10(group.count);
      pen.beginPath();
      pen.arc(group.x, group.y, radius, 0, 2 * Math.PI);
      pen.fillStyle = colour("--accent");
      pen.fill();
      pen.strokeStyle = colour("--card");
      pen.lineWidth = 2;
      pen.stroke();
      if (group.count > 1) {
        pen.fillStyle = colour("--on-accent");
        pen.font = "600 11px system-ui, sans-serif";
        pen.textAlign = "center";
        pen.textBaseline = "middle";
        pen.fillText(group.count > 999 ? `${Math.round(group.count / 1000)}k` : group.count, group.x, group.y);
      }
      pen.lineWidth = 1;
    }
    const inside = this.groups.reduce((sum, group) => sum + group.count, 0);
    $("map-only").textContent = `Show the ${number(inside)} of this area`;
    $("map-only").disabled = !inside;
    this.canvas.setAttribute("aria-label", `Map: ${number(inside)} pictures in view, in ${this.groups.length} spots. Arrows move, plus and minus zoom, Enter shows the pictures.`);
  }

  gathered() {
    const cells = new Map();
    for (const [latitude, longitude, count, id] of this.spots) {
      const [x, y] = this.toPixels(longitude, latitude);
      if (x < 0 || y < 0 || x > this.canvas.clientWidth || y > this.canvas.clientHeight) continue;
      const cell = `${Math.floor(x / NEAR)} ${Math.floor(y / NEAR)}`;
      const group = cells.get(cell) ?? { x: 0, y: 0, count: 0, id, south: 90, north: -90, west: 180, east: -180 };
      group.x += x * count;
      group.y += y * count;
      group.count += count;
      group.south = Math.min(group.south, latitude);
      group.north = Math.max(group.north, latitude);
      group.west = Math.min(group.west, longitude);
      group.east = Math.max(group.east, longitude);
      cells.set(cell, group);
    }
    return [...cells.values()].map((group) => ({ ...group, x: group.x / group.count, y: group.y / group.count })).sort((a, b) => a.count - b.count);
  }

  zoom(factor, x = this.canvas.clientWidth / 2, y = this.canvas.clientHeight / 2) {
    const [longitude, latitude] = this.toPlace(x, y);
    this.scale = Math.min(DEEPEST, Math.max(1, this.scale * factor));
    const [newX, newY] = this.toPixels(longitude, latitude);
    this.pan(x - newX, y - newY);
  }

  pan(dx, dy) {
    this.centre = [Math.max(-180, Math.min(180, this.centre[0] - dx / this.step)), Math.max(-85, Math.min(85, this.centre[1] + dy / this.step))];
    this.frame ??= requestAnimationFrame(() => {
      this.frame = null;
      this.draw();
    });
  }

  only(area) {
    const { clientWidth, clientHeight } = this.canvas;
    const [west, north] = this.toPlace(0, 0);
    const [east, south] = this.toPlace(clientWidth, clientHeight);
    area ??= [south, west, north, east];
    const [a, b, c, d] = area;
    const within = [Math.max(-90, a), Math.max(-180, b), Math.min(90, c), Math.min(180, d)];
    go({ area: within.map((value) => value.toFixed(4)).join(","), tab: null, open: null });
  }

  pointers() {
    const held = new Map();
    let moved = 0;
    let apart = 0;
    this.canvas.addEventListener("pointerdown", (event) => {
      this.canvas.setPointerCapture(event.pointerId);
      held.set(event.pointerId, event);
      moved = 0;
      if (held.size === 2) apart = distance([...held.values()]);
    });
    this.canvas.addEventListener("pointermove", (event) => {
      const before = held.get(event.pointerId);
      if (!before) return this.hover(event);
      held.set(event.pointerId, event);
      moved += Math.abs(event.clientX - before.clientX) + Math.abs(event.clientY - before.clientY);
      if (held.size === 2) {
        const now = distance([...held.values()]);
        if (apart) this.zoom(now / apart);
        apart = now;
      } else this.pan(event.clientX - before.clientX, event.clientY - before.clientY);
    });
    for (const end of ["pointerup", "pointercancel"]) this.canvas.addEventListener(end, (event) => {
      held.delete(event.pointerId);
      apart = 0;
      if (end === "pointerup" && moved < 6) this.pressed(event);
    });
    this.canvas.addEventListener("wheel", (event) => {
      event.preventDefault();
      this.zoom(Math.exp(-event.deltaY / 300), event.offsetX, event.offsetY);
    }, { passive: false });
  }

  near(event) {
    const box = this.canvas.getBoundingClientRect();
    const [x, y] = [event.clientX - box.left, event.clientY - box.top];
    return this.groups?.findLast((group) => Math.hypot(group.x - x, group.y - y) < 12 + 4 * Math.log10(group.count));
  }

  hover(event) {
    const group = this.near(event);
    const tip = $("map-tip");
    this.canvas.classList.toggle("over", Boolean(group));
    tip.hidden = !group;
    if (!group) return;
    tip.style.left = `${group.x}px`;
    tip.style.top = `${group.y}px`;
    tip.querySelector("span").textContent = `${number(group.count)} ${group.count === 1 ? "picture" : "pictures"}`;
    const image = tip.querySelector("img");
    if (image.dataset.id !== group.id) {
      image.dataset.id = group.id;
      image.src = here(group.id);
    }
  }

  pressed(event) {
    const group = this.near(event);
    if (!group) return;
    $("map-tip").hidden = true;
    const edge = 0.0006;
    this.only([group.south - edge, group.west - edge, group.north + edge, group.east + edge]);
  }

  key(event) {
    const by = 80;
    const work = {
      ArrowLeft: () => this.pan(by, 0),
      ArrowRight: () => this.pan(-by, 0),
      ArrowUp: () => this.pan(0, by),
      ArrowDown: () => this.pan(0, -by),
      "+": () => this.zoom(2),
      "=": () => this.zoom(2),
      "-": () => this.zoom(0.5),
      Enter: () => this.only(),
    }[event.key];
    if (!work) return;
    event.preventDefault();
    work();
  }
}

