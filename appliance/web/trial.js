// The test of an upstream: each step as it is taken, with its reason where it fails.

import { Refused, get, post, sentence } from "./api.js";
import { fill, h, problem, region } from "./dom.js";
import { lastStatus } from "./store.js";
import { texts } from "./texts.js";
import { rate } from "./words.js";

/** @typedef {import("./types.js").Trial} Trial */
/** @typedef {import("./types.js").TrialStep} TrialStep */

const LOOK_EVERY = 400;
/** @type {Record<TrialStep["state"], string>} */
const MARK = { waiting: "·", running: "…", passed: "✓", failed: "✕", skipped: "–" };

/**
 * Runs one test to its end and shows it in `element`.
 *
 * @param {HTMLElement} element
 * @param {Record<string, string>} wish an address, or a mountpoint and one of its pushes
 * @param {import("./app.js").Place} place
 * @param {number} [needed] bits per second that shall go there
 */
export async function startTrial(element, wish, place, needed) {
  let left = false;
  place.onLeave(() => {
    left = true;
  });
  const shown = region(h("div", { role: "status" }), (/** @type {Trial} */ trial) => drawTrial(trial, needed));
  fill(element, shown);
  try {
    let trial = /** @type {Trial} */ (await post("/api/v1/upstream-tests", wish));
    for (;;) {
      shown.show(trial);
      if (trial.state !== "running" || left) return;
      await new Promise((resolve) => setTimeout(resolve, LOOK_EVERY));
      trial = await get(`/api/v1/upstream-tests/${encodeURIComponent(trial.id)}`);
    }
  } catch (error) {
    fill(element, problem(error instanceof Refused && error.status === 404 ? new Error(texts.trial.forgotten) : error));
  }
}

/**
 * @param {Trial} trial
 * @param {number | undefined} needed
 */
function drawTrial(trial, needed) {
  const steps = trial.steps.map((step) =>
    h(
      "li",
      { class: step.state },
      h("span", { class: "mark", "aria-hidden": "true" }, MARK[step.state]),
      h("strong", null, `${texts.trial.steps[step.step] ?? step.step}: ${texts.trial.state[step.state]}`),
      step.text ? h("p", { class: "small" }, sentence(step.text)) : null,
    ),
  );
  return [h("ol", { class: "steps" }, ...steps), trial.state === "running" ? h("p", { class: "quiet" }, texts.trial.running) : verdict(trial, needed)];
}

/**
 * @param {Trial} trial
 * @param {number | undefined} needed
 */
function verdict(trial, needed) {
  const isGood = trial.state === "passed";
  const lines = [h("p", null, h("strong", null, isGood ? texts.trial.passed : texts.trial.failed))];
  let level = isGood ? "good" : "bad";
  if (trial.bits_per_second) {
    lines.push(h("p", null, texts.trial.bandwidth(rate(trial.bits_per_second))));
    if (needed) {
      const isEnough = trial.bits_per_second > needed * 1.2;
      if (!isEnough) level = "wait";
      lines.push(h("p", null, isEnough ? texts.trial.enough(rate(needed)) : texts.trial.notEnough(rate(needed))));
    }
    if (trial.segments && trial.resent_segments !== undefined) {
      const part = (trial.resent_segments / trial.segments) * 100;
      lines.push(h("p", { class: "small" }, trial.resent_segments ? texts.trial.loss(`${part.toFixed(part < 1 ? 2 : 1)} %`) : texts.trial.noLoss));
    }
  }
  return h("div", { class: `note ${level}` }, ...lines);
}

/** @type {import("./app.js").Screen} */
export function trialScreen(place) {
  const [name = "", id = ""] = place.parts;
  const status = lastStatus();
  const mountpoint = status?.mountpoints[name];
  const url = mountpoint?.pushes[id]?.url ?? id;
  const told = h("div", null);
  const button = h("button", { type: "button", class: "main wide", onclick: async () => {
    button.disabled = true;
    button.textContent = texts.trial.running;
    await startTrial(told, { mountpoint: name, push: id }, place, lastStatus()?.mountpoints[name]?.stream?.bitrate);
    button.disabled = false;
    button.textContent = texts.trial.again;
  } }, texts.trial.button);
  return h(
    "div",
    { class: "narrow" },
    h("h1", null, texts.trial.title),
    h("p", null, url),
    h("p", { class: "quiet small" }, texts.trial.warn),
    told,
    h("div", { class: "foot" }, button),
    h("div", { class: "row" }, h("a", { class: "button wide", href: "#/upstreams" }, texts.back)),
  );
}
