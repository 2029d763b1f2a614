// The gateway's status, asked again and again while somebody looks.

import { Unreachable, ask } from "./api.js";

/** @typedef {import("./types.js").Status} Status */

const EVERY = 2500;

/** @type {Status | null} */
let status = null;
/** When an answer last came, by this device's clock. @type {number} */
let heard = Date.now();
let lost = false;
let running = false;
/** @type {ReturnType<typeof setTimeout> | undefined} */
let timer;
/** @type {Set<(status: Status | null, lost: boolean) => void>} */
const listeners = new Set();

/** The status that came last. */
export const lastStatus = () => status;
/** When that was. */
export const lastHeard = () => heard;

/**
 * Calls the listener now and after each answer, until the returned function is called.
 *
 * @param {(status: Status | null, lost: boolean) => void} listener
 */
export function follow(listener) {
  listeners.add(listener);
  listener(status, lost);
  return () => {
    listeners.delete(listener);
  };
}

/** Asks at once, as something has just changed. */
export async function refresh() {
  try {
    status = /** @type {Status} */ ((await ask("GET", "/api/v1/status")).body);
    heard = Date.now();
    lost = false;
  } catch (error) {
    // One answer that is late is no reason to worry anybody.
    lost = error instanceof Unreachable && Date.now() - heard > 2 * EVERY;
  }
  for (const listener of [...listeners]) listener(status, lost);
}

async function turn() {
  if (document.visibilityState === "visible") await refresh();
  if (running) timer = setTimeout(turn, EVERY);
}

/** Begins to ask. */
export function start() {
  if (running) return;
  running = true;
  heard = Date.now();
  void turn();
}

/** Ceases, and forgets what came. */
export function stop() {
  running = false;
  clearTimeout(timer);
  status = null;
}

document.addEventListener("visibilitychange", () => {
  if (running && document.visibilityState === "visible") void refresh();
});
