// The gateway itself: what somebody should look at, its version, clock and addresses.

import { sentence } from "./api.js";
import { h, region } from "./dom.js";
import { lastHeard } from "./store.js";
import { texts } from "./texts.js";
import { noticesOf, since, span } from "./words.js";

/** @typedef {import("./types.js").Status} Status */

const words = texts.site;
/** Differences of clocks that a person would notice, in seconds. */
const CLOCKS_AGREE = 5;

/** @type {import("./app.js").Screen} */
export function siteScreen(place) {
  const look = region(h("div", null), (/** @type {{notices: Status["notices"], undone: Status["config"]["rolled_back"] | null, ago: string}} */ { notices, undone, ago }) => {
    const back = undone
      ? h("div", { class: "note wait" }, h("p", null, h("strong", null, words.undone)), undone.causes.map((it) => h("p", null, sentence([it.path, it.problem].filter(Boolean).join(": ")))), h("p", { class: "small" }, words.undoneBy(undone.by, ago)))
      : null;
    if (!notices.length && !back) return h("p", null, words.lookNothing);
    return [back, ...notices.map((notice) => h("div", { class: "note wait" }, h("p", null, sentence(notice.text))))];
  });
  const facts = region(h("dl", { class: "facts" }), (/** @type {[string, string][]} */ all) => all.map(([term, value]) => h("div", { class: value.length > 18 ? "long" : false }, h("dt", null, term), h("dd", null, value))));
  const clock = region(h("div", null), (/** @type {string} */ off) => (off ? h("div", { class: "note wait" }, h("p", null, words.clockOff(off))) : null));
  place.onStatus((status) => {
    const undone = status.config.rolled_back ?? null;
    look.show({ notices: noticesOf(status), undone, ago: undone ? since(undone.at, status.at) : "" });
    const listens = Object.entries(status.listeners).flatMap(([kind, it]) => it.addresses.map((address) => `${kind} ${address}`));
    facts.show([
      [words.version, status.version],
      [words.runs, since(status.started, status.at)],
      [words.revision, words.revisionText(status.config.revision, status.config.changed_by || "-")],
      [words.listens, listens.join(", ")],
    ]);
    const off = Math.abs(Date.parse(status.at) - lastHeard()) / 1000;
    clock.show(off > CLOCKS_AGREE ? span(off) : "");
  });
  const isAdmin = place.session.role === "admin";
  return h(
    "div",
    null,
    h("h1", null, words.title),
    h("h2", null, words.look),
    clock,
    look,
    h("h2", null, words.gateway),
    facts,
    isAdmin ? h("div", { class: "row" }, h("a", { class: "button", href: "#/site/history" }, words.help)) : null,
    h("h2", null, words.numbers),
    h("p", null, ...["/api/v1/status", "/api/v1/config", "/metrics"].flatMap((path) => [h("a", { href: path }, path), " "])),
  );
}
