// The gateway itself: what somebody should look at, its version, clock and addresses.

import { get, post, sentence } from "./api.js";
import { uplinkChart } from "./chart.js";
import { fill, form, h, region } from "./dom.js";
import { lastHeard, lastStatus } from "./store.js";
import { texts } from "./texts.js";
import { noticesOf, since, span } from "./words.js";

/** @typedef {import("./types.js").Status} Status */

const words = texts.site;
/** Differences of clocks that a person would notice, in seconds. */
const CLOCKS_AGREE = 5;
/** The name is another one when somebody else in the network has it. */
const ASK_NAME_EVERY = 10_000;

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
  const line = h("div", null);
  const clock = region(h("div", null), (/** @type {string} */ off) => (off ? h("div", { class: "note wait" }, h("p", null, words.clockOff(off))) : null));
  let announced = "";
  const askName = async () => {
    const network = /** @type {import("./types.js").Network} */ (await get("/api/v1/network"));
    announced = network.announced.join(", ") || words.notAnnounced;
    const status = lastStatus();
    if (status) showFacts(status);
  };
  const showFacts = (/** @type {Status} */ status) => {
    const listens = Object.entries(status.listeners).flatMap(([kind, it]) => it.addresses.map((address) => `${kind} ${address}`));
    facts.show([
      [words.version, status.version],
      [words.runs, since(status.started, status.at)],
      [words.revision, words.revisionText(status.config.revision, status.config.changed_by || "-")],
      ...(announced ? [/** @type {[string, string]} */ ([words.announced, announced])] : []),
      [words.listens, listens.join(", ")],
    ]);
  };
  void askName().catch(() => {});
  const again = setInterval(() => void askName().catch(() => {}), ASK_NAME_EVERY);
  place.onLeave(() => clearInterval(again));
  place.onStatus((status) => {
    const undone = status.config.rolled_back ?? null;
    look.show({ notices: noticesOf(status), undone, ago: undone ? since(undone.at, status.at) : "" });
    showFacts(status);
    fill(line, uplinkChart() ?? h("p", { class: "quiet" }, words.uplinkNone));
    const off = Math.abs(Date.parse(status.at) - lastHeard()) / 1000;
    clock.show(off > CLOCKS_AGREE ? span(off) : "");
  });
  const isAdmin = place.session.role === "admin";
  const mayRestart = isAdmin || place.session.role === "installer";
  return h(
    "div",
    null,
    h("h1", null, words.title),
    h("h2", null, words.look),
    clock,
    look,
    h("h2", null, words.gateway),
    facts,
    h(
      "div",
      { class: "row" },
      h("a", { class: "button", href: "#/site/network" }, words.network),
      h("a", { class: "button", href: "#/site/updates" }, words.updates),
      h("a", { class: "button", href: "#/site/events" }, words.events),
      mayRestart ? h("a", { class: "button", href: "#/site/bundle" }, texts.bundle.open) : null,
      isAdmin ? h("a", { class: "button", href: "#/site/history" }, words.help) : null,
    ),
    h("h2", null, words.certificate),
    h("p", null, words.certificateWhy),
    h("div", { class: "row" }, h("a", { class: "button main", href: "#/site/certificate" }, words.certificate)),
    h("h2", null, words.uplink),
    line,
    mayRestart ? restartPart() : null,
    h("h2", null, words.numbers),
    h("p", null, ...["/api/v1/status", "/api/v1/config", "/metrics"].flatMap((path) => [h("a", { href: path }, path), " "])),
  );
}

/** It cannot be undone, so it asks once. */
function restartPart() {
  const told = h("div", { role: "status" });
  const asks = h("div", { hidden: true, class: "note wait" }, h("p", null, words.restartAsk));
  asks.append(
    form({ button: words.restartYes, busy: words.restarting }, [], async () => {
      await post("/api/v1/restart");
      asks.hidden = true;
      fill(told, h("div", { class: "note wait" }, h("p", null, words.restarted)));
    }),
  );
  const ask = h("button", { type: "button", class: "wide", onclick: () => {
    asks.hidden = !asks.hidden;
    asks.querySelector("button")?.focus();
  } }, words.restart);
  return h("div", { class: "narrow" }, ask, asks, told);
}
