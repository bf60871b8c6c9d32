// What the page shows is what its address says: query, filters, order, opened picture. So each view is a link.

const FILTERS = ["folder", "camera", "country", "after", "before", "kind", "min_side", "area", "album", "hidden"];
const SOUGHT = ["q", "like", "part", "picture"];
const VIEW = ["library", ...SOUGHT, ...FILTERS, "sort"];
const listeners = [];

export function read() {
  return Object.fromEntries(new URLSearchParams(location.search));
}

// The address with some of its parts changed; an empty one goes.
export function link(changes) {
  const parts = { ...read(), ...changes };
  const kept = new URLSearchParams(Object.entries(parts).filter(([, value]) => value !== "" && value !== null && value !== undefined));
  return kept.size ? `?${kept}` : "?";
}

export const nothingSought = Object.fromEntries([...SOUGHT, "sort", "open"].map((name) => [name, null]));
export const noFilters = Object.fromEntries(FILTERS.map((name) => [name, null]));

export function go(changes, { replace = false } = {}) {
  const url = link(changes);
  if (url !== (location.search || "?")) history[replace ? "replaceState" : "pushState"](null, "", url);
  tell();
}

export function onChange(listener) {
  listeners.push(listener);
}

export function tell() {
  for (const listener of listeners) listener(read());
}

addEventListener("popstate", tell);

// A link that goes its way without a reload; with a key held it opens elsewhere, as links do.
document.addEventListener("click", (event) => {
  const anchor = event.target.closest("a[data-view]");
  if (!anchor || event.ctrlKey || event.metaKey || event.shiftKey || event.button) return;
  event.preventDefault();
  history.pushState(null, "", anchor.getAttribute("href"));
  tell();
});

export const isSearch = (at) => SOUGHT.some((name) => at[name]);
export const viewOf = (at) => JSON.stringify(VIEW.map((name) => at[name] ?? ""));
export const filtersOf = (at) => FILTERS.filter((name) => name in at);

// The request that shows it.
export function request(at) {
  const asked = {};
  for (const name of ["library", "like", "picture", "folder", "after", "before", "kind", "album", "sort"]) if (at[name]) asked[name] = at[name];
  for (const name of ["camera", "country"]) if (name in at) asked[name] = at[name] === "-" ? "" : at[name];
  if (at.q) asked.query = at.q;
  if (at.min_side) asked.min_side = Number(at.min_side) || 0;
  if (at.hidden) asked.hidden = true;
  for (const name of ["part", "area"]) if (at[name]) asked[name] = at[name].split(",").map(Number);
  return asked;
}
