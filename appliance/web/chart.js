// Small charts of the last minutes, from the status as it is asked anyway.

import { h, s } from "./dom.js";
import { texts } from "./texts.js";
import { rate } from "./words.js";

/** @typedef {import("./types.js").Status} Status */
/** @typedef {{at: number, bitrate: number, pictures: number, sent: number}} Sample */

/** About five minutes. */
const KEPT = 120;
const [WIDTH, HEIGHT] = [300, 60];
/** @type {Map<string, Sample[]>} */
const samples = new Map();
/** Bytes that all upstreams of a camera had got, and when. @type {Map<string, {at: number, bytes: number}>} */
const totals = new Map();

/**
 * Keeps what this status says.
 *
 * @param {Status} status
 */
export function keepSample(status) {
  const at = Date.parse(status.at);
  for (const [name, mountpoint] of Object.entries(status.mountpoints)) {
    const all = samples.get(name) ?? [];
    if (all.length && at <= (all[all.length - 1]?.at ?? 0)) continue;
    const bytes = Object.values(mountpoint.pushes).reduce((sum, push) => sum + push.counters.bytes, 0);
    const before = totals.get(name);
    totals.set(name, { at, bytes });
    const sent = before && at > before.at ? (Math.max(0, bytes - before.bytes) * 8000) / (at - before.at) : 0;
    const video = mountpoint.stream?.tracks.find((track) => track.kind === "video");
    all.push({ at, bitrate: mountpoint.stream?.bitrate ?? 0, pictures: video?.frame_rate ?? 0, sent });
    samples.set(name, all.slice(-KEPT));
  }
  for (const name of [...samples.keys()]) {
    if (!(name in status.mountpoints)) {
      samples.delete(name);
      totals.delete(name);
    }
  }
}

/** Nothing of one session is shown in the next. */
export function forgetSamples() {
  samples.clear();
  totals.clear();
}

/**
 * The charts of one camera.
 *
 * @param {string} name
 */
export function chartsOf(name) {
  const all = samples.get(name) ?? [];
  const sends = all.some((it) => it.sent > 0);
  return [
    chart(texts.chart.bitrate, all.map((it) => it.bitrate), rate),
    chart(texts.chart.pictures, all.map((it) => it.pictures), (value) => texts.camera.perSecond(value.toFixed(value < 10 ? 1 : 0))),
    sends ? chart(texts.chart.uplink, all.map((it) => it.sent), rate) : null,
  ];
}

/** What all cameras send together. */
export function uplinkChart() {
  const length = Math.max(0, ...[...samples.values()].map((all) => all.length));
  const sums = Array.from({ length }, (_, index) => [...samples.values()].reduce((sum, all) => sum + (all[all.length - length + index]?.sent ?? 0), 0));
  return chart(texts.chart.uplink, sums, rate);
}

/**
 * @param {string} label
 * @param {number[]} values
 * @param {(value: number) => string} words
 */
function chart(label, values, words) {
  if (values.length < 2) return null;
  const most = Math.max(...values, 1e-9);
  const x = (/** @type {number} */ index) => (index / (KEPT - 1)) * WIDTH + WIDTH - ((values.length - 1) / (KEPT - 1)) * WIDTH;
  const y = (/** @type {number} */ value) => HEIGHT - 2 - (value / most) * (HEIGHT - 6);
  const points = values.map((value, index) => `${x(index).toFixed(1)},${y(value).toFixed(1)}`).join(" ");
  const now = words(values[values.length - 1] ?? 0);
  const text = texts.chart.text(now, words(most), words(Math.min(...values)));
  return h(
    "figure",
    { class: "chart" },
    h("figcaption", null, h("strong", null, label), " ", h("span", { class: "quiet small" }, text)),
    s("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", role: "img", "aria-label": `${label}: ${text}` }, s("polyline", { points })),
  );
}
