// Talking to the server of this page alone; its policy allows nothing else.

import { $, say } from "./dom.js";

// Paths go from where the page itself lies, so that it works below a path of a proxy's.
export const here = (path) => path.replace(/^\/+/, "");

// What the server says of a request, for people.
export class Fault extends Error {}

export async function call(path, body) {
  for (let attempt = 0; ; attempt++) {
    const key = sessionStorage.getItem("key");
    const headers = key ? { Authorization: `Bearer ${key}` } : {};
    if (body) headers["Content-Type"] = "application/json";
    let answer;
    try {
      answer = await fetch(here(path), { method: body ? "POST" : "GET", headers, body: body && JSON.stringify(body) });
    } catch {
      throw new Fault("The server does not answer. Is it still running?");
    }
    if (answer.ok) return answer;
    if (answer.status === 401 && attempt < 9) {
      await askKey(Boolean(key));
    } else if (answer.status === 429 && attempt < 3) {
      await new Promise((done) => setTimeout(done, 1000 * (Number(answer.headers.get("Retry-After")) || 1)));
    } else {
      const fault = await answer.json().catch(() => null);
      throw new Fault(fault?.error?.message || `The server answered ${answer.status}.`);
    }
  }
}

export const ask = async (path, body) => (await call(path, body)).json();

let asking = null;
function askKey(wasWrong) {
  asking ??= new Promise((done) => {
    const dialog = $("locked");
    say($("locked-status"), wasWrong ? "That is not the key of this server." : "", true);
    dialog.showModal();
    dialog.addEventListener("close", () => {
      // What no header can hold is no key either, and would stop every request before it goes out.
      const key = $("key").value.trim();
      sessionStorage.setItem("key", /^[\x21-\x7e]+$/.test(key) ? key : "-");
      $("key").value = "";
      asking = null;
      done();
    }, { once: true });
  });
  return asking;
}

// A picture that needs the key, or is asked for with words.
export async function show(image, path, asked) {
  const wanted = asked ? `${path} ${JSON.stringify(asked)}` : path;
  image.dataset.path = wanted;
  image.removeAttribute("src"); // or it would stand beside the name of the next one until that comes, if it does
  if (!asked) {
    image.src = here(path); // opened by the ticket in it where a key is asked for
    return;
  }
  try {
    const blob = await (await call(path, asked)).blob();
    if (image.dataset.path !== wanted) return;
    image.src = URL.createObjectURL(blob);
    image.addEventListener("load", () => URL.revokeObjectURL(image.src), { once: true });
  } catch {
    if (image.dataset.path === wanted) image.alt = "no picture";
  }
}
