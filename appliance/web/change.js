// Changes of the config. One that touches what runs is only tried: this page then shows when it goes back by itself, and
// confirms it over a new connection, as each of its requests has one of its own.

import { Refused, Unreachable, ask, sentence } from "./api.js";
import { fill, h } from "./dom.js";
import { lastStatus, refresh } from "./store.js";
import { texts } from "./texts.js";

const KEY = "fieldgate-pending";
const EVERY = 1500;

/** @typedef {{revision: number, until: number}} Pending */

const sheet = h("div", { class: "sheet", role: "status" });
let watching = false;
/** A change of this page is on its way: it sees to it itself. */
let sending = false;
/** The change of somebody else, or of this person at another address, that is offered for keeping now. */
let offered = "";

/** Where a change under way, and what can be undone, is shown. */
export const changeSheet = () => sheet;

/**
 * Changes the config by `edit`, which may throw to leave it. Ends when the change is kept; throws when it was refused or
 * undone.
 *
 * @param {(config: any) => void} edit
 */
export async function change(edit) {
  sending = true;
  try {
    await send(edit);
  } finally {
    sending = false;
  }
}

/**
 * Sends a change that the gateway does not get as a config, and sees it through; what it answered.
 *
 * @param {() => Promise<{body: any}>} post
 */
export async function sendChange(post) {
  sending = true;
  try {
    const { body } = await post();
    await settle(body);
    await refresh();
    return body;
  } finally {
    sending = false;
  }
}

/** Ends when a change is kept. @param {any} answer */
async function settle(answer) {
  if (answer?.state !== "awaiting_confirm") return;
  const seconds = Number.parseInt(answer.confirm_within, 10) || 90;
  await seeThrough({ revision: answer.revision, until: Date.now() + seconds * 1000 });
}

/** @param {(config: any) => void} edit */
async function send(edit) {
  for (let tries = 0; ; tries += 1) {
    const { body: config, etag } = await ask("GET", "/api/v1/config");
    edit(config);
    try {
      const answer = await ask("PUT", "/api/v1/config", { body: config, etag });
      await settle(answer.body);
      // What is shown next knows of it already.
      await refresh();
      return;
    } catch (error) {
      // Somebody else was faster: what they did is kept, ours goes on top.
      if (error instanceof Refused && error.status === 412 && tries < 2) continue;
      if (error instanceof Refused && error.status === 412) throw new Error(texts.change.moved);
      throw error;
    }
  }
}

/** Goes on with a change of this page that was being tried when the page was left. */
export function goOn() {
  const kept = sessionStorage.getItem(KEY);
  if (!kept || watching) return;
  const pending = /** @type {Pending} */ (JSON.parse(kept));
  if (pending.until < Date.now()) {
    sessionStorage.removeItem(KEY);
    return;
  }
  seeThrough(pending).catch((error) => say("bad", error instanceof Error ? error.message : String(error)));
}

/**
 * A change that is being tried and that this page has not made: whoever sees it may keep it. Never by itself, as he may
 * only have come to look.
 *
 * @param {import("./types.js").Status} status
 * @param {boolean} mayChange
 */
export function offer(status, mayChange) {
  const pending = status.config.phase === "awaiting_confirm" ? status.config.pending : undefined;
  if (watching || sending || !mayChange) return;
  if (!pending) {
    if (offered) fill(sheet);
    offered = "";
    return;
  }
  const left = Math.max(0, Math.ceil((Date.parse(pending.deadline) - Date.parse(status.at)) / 1000));
  const text = texts.change.offered(pending.by, left);
  if (offered) {
    const said = sheet.querySelector("#offered");
    if (said) said.textContent = text;
    return;
  }
  offered = pending.deadline;
  const revision = status.config.revision + 1;
  const keep = () => {
    offered = "";
    seeThrough({ revision, until: Date.now() + left * 1000 }).catch((error) => say("bad", error instanceof Error ? error.message : String(error)));
  };
  fill(sheet, h("div", { class: "note wait" }, h("p", { id: "offered" }, text), h("div", { class: "row" }, h("button", { type: "button", class: "main", onclick: keep }, texts.change.keep))));
}

/**
 * Confirms until the change is kept or gone.
 *
 * @param {Pending} pending
 */
async function seeThrough(pending) {
  watching = true;
  offered = "";
  sessionStorage.setItem(KEY, JSON.stringify(pending));
  let waitsFor = /** @type {string[]} */ ([]);
  const show = () => {
    const left = Math.max(0, Math.ceil((pending.until - Date.now()) / 1000));
    const wait = waitsFor.length ? h("p", { class: "small" }, texts.change.waitsFor(waitsFor.map(plain).join(", "))) : null;
    fill(sheet, h("div", { class: "note wait", id: "countdown" }, h("p", null, h("strong", null, texts.change.trying(left))), wait));
  };
  show();
  const ticking = setInterval(show, 1000);
  try {
    for (;;) {
      const answer = await confirm(pending.revision);
      if (answer === "kept") {
        say("good", texts.change.kept);
        return;
      }
      if (answer === "gone") throw new Error(await whyUndone());
      waitsFor = answer;
      show();
      await new Promise((resolve) => setTimeout(resolve, EVERY));
    }
  } catch (error) {
    fill(sheet);
    throw error;
  } finally {
    clearInterval(ticking);
    sessionStorage.removeItem(KEY);
    watching = false;
    void refresh();
  }
}

/**
 * @param {number} revision what the change has once it is kept
 * @returns {Promise<"kept" | "gone" | string[]>} or what is not healthy again yet.
 */
async function confirm(revision) {
  try {
    const answer = await ask("POST", "/api/v1/config/confirm", { quiet: true });
    return answer.body?.state === "awaiting_confirm" ? (answer.body.unhealthy ?? []) : "kept";
  } catch (error) {
    if (error instanceof Unreachable || (error instanceof Refused && error.status >= 500)) return [];
    if (!(error instanceof Refused) || error.status !== 409) throw error;
  }
  // Nothing waits any more: it was kept by all being well, or it went back.
  await refresh();
  const config = lastStatus()?.config;
  if (config?.phase === "awaiting_confirm" || config?.phase === "applying") return [];
  return config && config.revision < revision ? "gone" : "kept";
}

async function whyUndone() {
  await refresh();
  const causes = lastStatus()?.config.rolled_back?.causes ?? [];
  return [texts.change.back, ...causes.map((it) => sentence([it.path, it.problem].filter(Boolean).join(": ")))].join(" ");
}

/** "source gate" is the camera gate. @param {string} part */
const plain = (part) => part.replace(/^(source|push|mountpoint)s? /, "");

/** @type {ReturnType<typeof setTimeout> | undefined} */
let fading;

/**
 * Says something for a while, with something to press beside it.
 *
 * @param {"good" | "wait" | "bad"} level
 * @param {string} text
 * @param {{label: string, press: () => Promise<void>}} [action]
 */
export function say(level, text, action) {
  clearTimeout(fading);
  const close = h("button", { type: "button", onclick: () => fill(sheet) }, texts.close);
  const press = async () => {
    fill(sheet);
    try {
      await action?.press();
    } catch (error) {
      say("bad", error instanceof Error ? error.message : String(error));
    }
  };
  const act = action ? h("button", { type: "button", class: "main", onclick: press }, action.label) : null;
  const shown = h("div", { class: `note ${level}` }, h("p", null, text), h("div", { class: "row" }, act, close));
  fill(sheet, shown);
  if (level !== "bad") {
    fading = setTimeout(() => {
      if (shown.isConnected && !watching) fill(sheet);
    }, 10_000);
  }
}
