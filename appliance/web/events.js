// What happened, in plain words, as it happens: the gateway's flight recorder.

import { get } from "./api.js";
import { fill, h } from "./dom.js";
import { texts } from "./texts.js";
import { shape } from "./words.js";

/** @typedef {import("./types.js").Happening} Happening */
/** @typedef {import("./types.js").Level} Level */

/** Lines that stay on the screen; older ones are asked for by programs. */
const SHOWN = 200;

/** @param {Happening["event"]} kind @returns {Level} */
function level(kind) {
  if (/_(lost|undone|bad)$|^load_shed$/.test(kind)) return "bad";
  if (/_(trouble|tried|probed)$|^(mending|notice)$/.test(kind)) return "wait";
  if (/_(back|began|good|confirmed)$|^(started|load_taken_back|acceptance|claimed)$/.test(kind)) return "good";
  return "off";
}

/** @type {import("./app.js").Screen} */
export async function eventsScreen(place) {
  const list = h("ol", { class: "list events" });
  const live = h("p", { class: "quiet small", role: "status" }, texts.events.live);
  const none = h("li", null, texts.events.none);
  const add = (/** @type {Happening} */ it) => {
    none.remove();
    list.prepend(line(it));
    while (list.children.length > SHOWN) list.lastElementChild?.remove();
  };
  const page = await get(`/api/v1/events?limit=${SHOWN}`);
  for (const it of /** @type {Happening[]} */ (page.events)) add(it);
  if (!list.children.length) list.append(none);
  const stream = new EventSource(`/api/v1/events/stream?since=${Number(page.next_cursor ?? 0)}`);
  stream.addEventListener("message", (message) => add(JSON.parse(message.data)));
  stream.addEventListener("gap", (message) => list.prepend(h("li", null, texts.events.gap(JSON.parse(message.data).missed))));
  stream.addEventListener("end", () => stream.close());
  stream.addEventListener("open", () => fill(live, texts.events.live));
  // The browser asks again by itself, and says where it was.
  stream.addEventListener("error", () => fill(live, texts.events.waiting));
  place.onLeave(() => stream.close());
  return h("div", null, h("h1", null, texts.events.title), live, h("div", { role: "log", "aria-label": texts.events.title }, list), h("div", { class: "row" }, h("a", { class: "button", href: "#/site" }, texts.back)));
}

/** @param {Happening} it */
function line(it) {
  const at = new Date(it.at);
  const when = `${at.toLocaleDateString()} ${at.toLocaleTimeString()}`;
  const about = [it.mountpoint, it.upstream].filter(Boolean).join(" → ");
  const kind = level(it.event);
  return h(
    "li",
    null,
    h("p", { class: `status ${kind}` }, shape(kind), h("span", null, texts.events.level[kind]), about ? h("strong", null, about) : null),
    h("p", null, it.text),
    h("p", { class: "quiet small" }, h("time", { datetime: it.at }, when)),
  );
}
