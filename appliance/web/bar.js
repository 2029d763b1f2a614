// What became of a stream on its way to an upstream, as a bar of the last 24 hours.

import { get } from "./api.js";
import { h, s } from "./dom.js";
import { texts } from "./texts.js";
import { span } from "./words.js";

/** @typedef {import("./types.js").LedgerEntry} LedgerEntry */

const HOURS = 24;
const WIDTH = 1000;
/** Losses are seen however short they are. */
const LEAST = 2;

/** @type {Record<string, string>} */
const KIND = { delivered: "delivered", sent: "delivered", pending: "pending", lost: "lost", unconfirmed: "unknown", unknown: "unknown" };
/** What is drawn over what. */
const LAYERS = ["delivered", "pending", "unknown", "lost"];

/**
 * All that the ledger has of a mountpoint in the last day, by upstream.
 *
 * @param {string} name
 * @param {string} now the gateway's clock
 * @returns {Promise<Map<string, LedgerEntry[]>>}
 */
export async function lastDay(name, now) {
  const from = new Date(Date.parse(now) - HOURS * 3_600_000).toISOString();
  /** @type {Map<string, LedgerEntry[]>} */
  const byUpstream = new Map();
  let cursor = "";
  // Bounded: a day of losses every few seconds is no longer a bar that says anything.
  for (let page = 0; page < 4; page += 1) {
    const query = `mountpoint=${encodeURIComponent(name)}&from=${encodeURIComponent(from)}&limit=5000${cursor}`;
    const answer = await get(`/api/v1/ledger?${query}`);
    for (const entry of /** @type {LedgerEntry[]} */ (answer.entries)) {
      byUpstream.set(entry.upstream, [...(byUpstream.get(entry.upstream) ?? []), entry]);
    }
    if (!answer.next_cursor) break;
    cursor = `&cursor=${encodeURIComponent(answer.next_cursor)}`;
  }
  return byUpstream;
}

/**
 * Seconds of which at least one entry of this kind tells; what several tracks lost at once counts once.
 *
 * @param {LedgerEntry[]} entries
 * @param {number} begin milliseconds since 1970
 */
export function lostSeconds(entries, begin) {
  const lost = entries
    .filter((it) => KIND[it.state] === "lost")
    .map((it) => [Math.max(Date.parse(it.from), begin), Date.parse(it.to)])
    .sort((a, b) => (a[0] ?? 0) - (b[0] ?? 0));
  let total = 0;
  let until = begin;
  for (const [from = 0, to = 0] of lost) {
    total += Math.max(0, to - Math.max(from, until));
    until = Math.max(until, to);
  }
  return total / 1000;
}

/**
 * The bar with its words.
 *
 * @param {string} upstream
 * @param {LedgerEntry[]} entries
 * @param {string} now
 */
export function dayBar(upstream, entries, now) {
  const end = Date.parse(now);
  const begin = end - HOURS * 3_600_000;
  const x = (/** @type {string} */ time) => ((Math.min(Math.max(Date.parse(time), begin), end) - begin) / (end - begin)) * WIDTH;
  const lost = lostSeconds(entries, begin);
  const summary = lost > 0 ? texts.ledger.summary(lost < 1 ? span(1) : span(lost)) : texts.ledger.nothingLost;
  const drawn = LAYERS.flatMap((layer) =>
    entries
      .filter((entry) => KIND[entry.state] === layer)
      .map((entry) => {
        const from = x(entry.from);
        const width = Math.max(x(entry.to) - from, layer === "lost" ? LEAST : 0.5);
        return s("rect", { class: layer, x: from.toFixed(1), y: layer === "lost" ? 0 : 8, width: width.toFixed(1), height: layer === "lost" ? 40 : 24 });
      }),
  );
  return h(
    "div",
    null,
    s("svg", { class: "bar", viewBox: `0 0 ${WIDTH} 40`, preserveAspectRatio: "none", role: "img", "aria-label": texts.ledger.label(upstream, summary) }, ...drawn),
    h("div", { class: "axis", "aria-hidden": "true" }, h("span", null, texts.ledger.ago(HOURS)), h("span", null, texts.ledger.ago(HOURS / 2)), h("span", null, texts.time.now)),
    h("p", null, summary),
  );
}

/** What the colours mean. */
export function barKey() {
  const one = (/** @type {string} */ kind, /** @type {string} */ text) => h("li", null, s("svg", { viewBox: "0 0 8 8", "aria-hidden": "true" }, s("rect", { class: kind, width: 8, height: 8 })), text);
  return h("ul", { class: "key" }, one("delivered", texts.ledger.delivered), one("pending", texts.ledger.pending), one("lost", texts.ledger.lost), one("unknown", texts.ledger.unknown));
}
