// Turns the gateway's status into a shape, a word and a sentence, and numbers into what people say.

import { sentence } from "./api.js";
import { h, s } from "./dom.js";
import { texts } from "./texts.js";

/** @typedef {import("./types.js").Activity} Activity */
/** @typedef {import("./types.js").Health} Health */
/** @typedef {import("./types.js").Level} Level */
/** @typedef {import("./types.js").Mountpoint} Mountpoint */
/** @typedef {import("./types.js").Push} Push */
/** @typedef {import("./types.js").Status} Status */

/**
 * "41 s", "3 min", "2 h", "5 days".
 *
 * @param {number} seconds
 */
export function span(seconds) {
  const whole = Math.max(0, Math.round(seconds));
  if (whole < 90) return texts.time.seconds(whole);
  if (whole < 90 * 60) return texts.time.minutes(Math.round(whole / 60));
  if (whole < 36 * 3600) return texts.time.hours(Math.round(whole / 3600));
  return texts.time.days(Math.round(whole / 86400));
}

/**
 * How long before `now` this was, both by the gateway's clock.
 *
 * @param {string} then
 * @param {string} now
 */
export function since(then, now) {
  return span((Date.parse(now) - Date.parse(then)) / 1000);
}

/**
 * "4.1 Mbit/s".
 *
 * @param {number} bits per second
 */
export function rate(bits) {
  if (bits >= 9.95e6) return texts.bitrate.mega(String(Math.round(bits / 1e6)));
  if (bits >= 1e6) return texts.bitrate.mega((bits / 1e6).toFixed(1));
  return texts.bitrate.kilo(String(Math.round(bits / 1000)));
}

/**
 * What helps against a cause that the gateway tells.
 *
 * @param {string} cause
 */
export function advice(cause) {
  return texts.advice.find(([pattern]) => pattern.test(cause))?.[1];
}

/**
 * A supervised part, whose good state has the word `running`.
 *
 * @param {Activity} activity
 * @param {string} running
 * @param {string} now
 * @returns {Health}
 */
function activityHealth(activity, running, now) {
  const { state, cause } = activity;
  const told = { what: cause ? sentence(cause) : undefined, since: activity.since, advice: cause ? advice(cause) : undefined };
  switch (state) {
    case "running":
      return { level: "good", word: running };
    case "starting":
      return { level: "wait", word: texts.word.starting };
    case "waiting":
      return { level: "off", word: texts.word.waits };
    case "retrying": {
      const wait = activity.next_attempt ? (Date.parse(activity.next_attempt) - Date.parse(now)) / 1000 : 0;
      // After some tries nobody is helped by hearing of the next one alone.
      const level = activity.attempts >= 5 || /password|refused:|certificate/i.test(cause ?? "") ? "bad" : "wait";
      return { level, word: wait > 1 ? texts.word.tryingIn(span(wait)) : texts.word.tryingAgain, ...told };
    }
    case "ended":
    case "stopping":
      return { level: "off", word: texts.word.ended };
    default:
      return { level: "bad", word: texts.word.needsYou, ...told };
  }
}

/**
 * One camera's picture; where it goes is not looked at.
 *
 * @param {Mountpoint} mountpoint
 * @param {string} now
 * @returns {Health}
 */
export function cameraHealth(mountpoint, now) {
  const { picture, stream, source } = mountpoint;
  const verdict = picture && picture.verdict !== "ok" ? texts.verdict[picture.verdict] : undefined;
  const activity = source.activity;
  if (activity && activity.state !== "running" && activity.state !== "waiting") {
    return activityHealth(activity, texts.word.live, now);
  }
  if (picture && verdict && (stream || picture.verdict === "dead")) {
    const what = picture.cause ? `${verdict.what} ${sentence(picture.cause)}` : verdict.what;
    return { level: "bad", word: texts.word.wrongPicture, what, since: picture.since, advice: source.ladder?.advice ?? verdict.advice };
  }
  if (stream) return { level: "good", word: texts.word.live };
  if (activity) return activityHealth({ ...activity, state: "starting" }, texts.word.live, now);
  return { level: "off", word: texts.word.nobody };
}

/**
 * One upstream.
 *
 * @param {Push} push
 * @param {string} now
 * @returns {Health}
 */
export function pushHealth(push, now) {
  if (!push.enabled) return { level: "off", word: texts.word.off };
  const error = push.kmp?.error;
  if (push.state === "running" && error) {
    return { level: "wait", word: texts.word.tryingAgain, what: sentence(error), since: push.since, advice: advice(error) };
  }
  return activityHealth(push, texts.word.delivering, now);
}

const ORDER = /** @type {Level[]} */ (["off", "good", "wait", "bad"]);

/**
 * The worse of two.
 *
 * @param {Level} a
 * @param {Level} b
 */
export const worse = (a, b) => (ORDER.indexOf(a) > ORDER.indexOf(b) ? a : b);

/**
 * A camera and all its upstreams.
 *
 * @param {Mountpoint} mountpoint
 * @param {string} now
 */
export function wholeLevel(mountpoint, now) {
  const pushes = Object.values(mountpoint.pushes).map((push) => pushHealth(push, now).level);
  return pushes.reduce(worse, cameraHealth(mountpoint, now).level);
}

/** Notices that tell what the page shows anyhow. */
const SHOWN_ELSEWHERE = new Set(["picture"]);

/** @param {Status} status */
export const noticesOf = (status) => (status.notices ?? []).filter((notice) => !SHOWN_ELSEWHERE.has(notice.code));

/**
 * The whole gateway in one word, and where the worst is.
 *
 * @param {Status} status
 * @returns {{level: Level, word: string, href: string}}
 */
export function overall(status) {
  /** @type {Record<Level, string[]>} */
  const names = { good: [], wait: [], bad: [], off: [] };
  for (const [name, mountpoint] of Object.entries(status.mountpoints)) {
    if (!name.endsWith("*")) names[wholeLevel(mountpoint, status.at)].push(name);
  }
  const at = (/** @type {string[]} */ list) => (list.length === 1 ? `#/cameras/${encodeURIComponent(list[0] ?? "")}` : "#/cameras");
  if (names.bad.length) return { level: "bad", word: texts.overall.bad(names.bad.length), href: at(names.bad) };
  if (noticesOf(status).length) return { level: "wait", word: texts.overall.notice, href: "#/site" };
  if (names.wait.length) return { level: "wait", word: texts.overall.wait(names.wait.length), href: at(names.wait) };
  if (names.good.length) return { level: "good", word: texts.overall.good(names.good.length), href: "#/cameras" };
  return { level: "off", word: texts.overall.nothing, href: "#/cameras" };
}

/** @param {Level} level */
export function shape(level) {
  const circle = { cx: 10, cy: 10, r: 8 };
  const shapes = {
    good: () => [s("circle", { ...circle, fill: "currentColor" })],
    wait: () => [s("circle", { ...circle, fill: "none", stroke: "currentColor", "stroke-width": 2 }), s("path", { d: "M10 2a8 8 0 0 1 0 16z", fill: "currentColor" })],
    bad: () => [s("path", { d: "M10 1.5 19 18H1z", fill: "currentColor" })],
    off: () => [s("circle", { ...circle, fill: "none", stroke: "currentColor", "stroke-width": 2 })],
  };
  return s("svg", { viewBox: "0 0 20 20", "aria-hidden": "true" }, ...shapes[level]());
}

/**
 * Shape and word.
 *
 * @param {{level: Level, word: string}} health
 */
export function statusOf(health) {
  return h("span", { class: `status ${health.level}` }, shape(health.level), h("span", null, health.word));
}

/**
 * What happened, since when, what to do; nothing where all is well.
 *
 * @param {Health} health
 * @param {string} now
 */
export function note(health, now) {
  if (!health.what) return null;
  return h(
    "div",
    { class: `note ${health.level}` },
    h("p", null, health.what),
    health.advice ? h("p", null, h("strong", null, health.advice)) : null,
    health.since ? h("p", { class: "small" }, texts.sinceAgo(since(health.since, now))) : null,
  );
}
