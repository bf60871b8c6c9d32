// How the pictures that are shown are spread, each number a link to them alone; and which filters there are now.

import { filtersOf, isSearch, link, noFilters } from "./address.js";
import { $, make, month, number } from "./dom.js";

const MOST = 12; // lines of a group before "all of them"
const UNTOLD = "-"; // stands in an address for a camera that is not told
const KINDS = { picture: "Pictures", video: "Videos" };

export function drawFacets(spread, at) {
  const groups = [];
  const years = (name) => ({ after: `${name}-01-01`, before: `${Number(name) + 1}-01-01` });
  // Of a view that is narrowed already: all albums stand on the shelf.
  const isNarrow = isSearch(at) || filtersOf(at).length > 0;
  const albums = spread.albums.filter(([name, count]) => isNarrow && count && name !== at.album);
  if (albums.length) groups.push(group("Of these in albums", albums.map(([name, count]) => [name, count, { album: name }, false])));
  if (spread.folders.length || at.folder) groups.push(folders(spread.folders, at));
  if (spread.years.length > 1 || at.after) groups.push(group("Years", spread.years.map(([name, count]) => [name, count, years(name), false])));
  const cameras = spread.cameras.map(([name, count]) => [name || "not told", count, { camera: name || UNTOLD }, false]);
  if (cameras.length > 1) groups.push(group("Cameras", cameras));
  if (spread.countries.length && !("country" in at)) groups.push(group("Places", spread.countries.map(([name, count]) => [name, count, { country: name }, false])));
  if (spread.kinds.length > 1) groups.push(group("Kinds", spread.kinds.map(([name, count]) => [KINDS[name], count, { kind: name }, false])));
  $("facets").replaceChildren(...groups.filter(Boolean));
  $("chips").replaceChildren(...chips(at));
}

function group(title, lines) {
  if (!lines.length) return null;
  const part = make("section", "facet");
  part.append(make("h2", "", title));
  const list = make("ul");
  list.append(...lines.map(line));
  if (lines.length > MOST + 2) {
    [...list.children].slice(MOST).forEach((item) => {
      item.hidden = true;
    });
    const more = make("button", "quiet small", `all ${lines.length}`);
    more.type = "button";
    more.addEventListener("click", () => {
      [...list.children].forEach((item) => {
        item.hidden = false;
      });
      more.remove();
    });
    part.append(list, more);
  } else {
    part.append(list);
  }
  return part;
}

function line([text, count, changes, isOn]) {
  const item = make("li");
  const anchor = make("a", isOn ? "on" : "");
  anchor.dataset.view = "";
  anchor.href = link({ ...changes, open: null });
  anchor.append(make("bdi", "", text), make("span", "count", number(count)));
  item.append(anchor);
  return item;
}

function folders(below, at) {
  const lines = below.map(([name, count]) => [name.slice(at.folder ? at.folder.length + 1 : 0), count, { folder: name }, false]);
  return group("Folders", lines);
}

// What narrows the view now, each with a way out.
function chips(at) {
  const names = filtersOf(at);
  if (!names.length) return [];
  const made = names.filter((name) => name !== "before" || !("after" in at)).map((name) => {
    const anchor = make("a", "filter");
    anchor.dataset.view = "";
    anchor.href = link({ [name]: null, ...(name === "after" ? { before: null } : {}), ...(name === "folder" ? { folder: at.folder.split("/").slice(0, -1).join("/") } : {}), open: null });
    anchor.append(make("bdi", "", told(name, at)), make("span", "", " ×"));
    anchor.setAttribute("aria-label", `Take away the filter ${told(name, at)}`);
    return anchor;
  });
  if (made.length > 1) {
    const all = make("a", "filter quiet", "clear all");
    all.dataset.view = "";
    all.href = link({ ...noFilters, open: null });
    made.push(all);
  }
  return made;
}

function told(name, at) {
  const value = at[name];
  if (name === "after" && at.before) {
    if (/^\d{4}-01-01$/.test(value) && at.before === `${Number(value.slice(0, 4)) + 1}-01-01`) return value.slice(0, 4);
    if (/^\d{4}-\d\d-01$/.test(value) && /-01$/.test(at.before)) return `${month(value)} to ${month(at.before)}, exclusive`;
    return `${value} to ${at.before}`;
  }
  const words = {
    after: `from ${value}`,
    before: `before ${value}`,
    camera: value === UNTOLD ? "camera not told" : value,
    kind: KINDS[value] ?? value,
    min_side: `at least ${value} px`,
    area: "an area of the map",
    album: `album ${value}`,
    hidden: "hidden pictures",
    folder: value,
  };
  return words[name] ?? value;
}
