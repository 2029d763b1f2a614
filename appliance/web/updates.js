// The machine's firmware: what runs, how the last update went, and sending a new one in pieces.

import { Unreachable, ask, get, post, sentence } from "./api.js";
import { check, field, fill, form, h, region } from "./dom.js";
import { lastStatus } from "./store.js";
import { texts } from "./texts.js";
import { since } from "./words.js";

/** @typedef {import("./types.js").Update} Update */
/** @typedef {import("./types.js").FirmwareUpload} FirmwareUpload */

const words = texts.updates;
const PATH = "/api/v1/update";
/** Bytes of one piece. */
const PIECE = 1 << 20;
/** How often a piece is tried again while the gateway does not answer, and the wait between. */
const TRIES = 20;
const WAIT_MS = 3000;

/** @type {import("./app.js").Screen} */
export async function updatesScreen(place) {
  const mayChange = place.session.role === "admin" || place.session.role === "installer";
  const now = region(h("div", null), drawNow);
  const last = region(h("div", { role: "status" }), drawLast);
  const sender = mayChange ? sendPart() : null;
  const draw = async () => {
    const update = /** @type {Update} */ (await get(PATH));
    now.show(update);
    last.show(update);
    sender?.show(update);
  };
  await draw();
  // The gateway may be starting anew: then the note above says that it is away.
  const again = setInterval(() => void draw().catch(() => {}), 2000);
  place.onLeave(() => clearInterval(again));
  return h("div", null, h("h1", null, words.title), now, last, sender?.element, h("div", { class: "row" }, h("a", { class: "button", href: "#/site" }, texts.back)));
}

/** @param {Update} update */
function drawNow(update) {
  const firmware = update.firmware;
  if (!firmware) return h("div", { class: "note wait" }, h("p", null, h("strong", null, words.absent)), h("p", null, sentence(update.cause ?? "")));
  const slots = firmware.slots.map((slot) => [words.slot(slot.name), [slot.version, slot.booted ? words.slotRuns : slot.state === "bad" ? words.slotBad : words.slotRests].filter(Boolean).join(", ")]);
  const facts = [[words.runs, firmware.version ?? words.notTold], [words.kind, firmware.compatible], ...slots];
  return h("dl", { class: "facts" }, facts.map(([term, value]) => h("div", { class: (value?.length ?? 0) > 18 ? "long" : false }, h("dt", null, term), h("dd", null, value))));
}

/** @param {Update} update */
function drawLast(update) {
  const last = update.last;
  const failed = update.fetch_failed ? h("div", { class: "note wait" }, h("p", null, words.fetchFailed(sentence(update.fetch_failed)))) : null;
  if (!last) return failed;
  const kind = last.phase === "good" ? "good" : last.phase === "failed" || last.phase === "refused" ? "bad" : "wait";
  const ago = since(last.at, lastStatus()?.at ?? new Date().toISOString());
  return [
    h("h2", null, words.last),
    h(
      "div",
      { class: `note ${kind}` },
      h("p", null, words.phases[last.phase]?.(last.version, last.from)),
      last.reason ? h("p", null, sentence(last.reason)) : null,
      last.phase === "installing" && update.firmware ? h("p", null, words.percent(update.firmware.percent)) : null,
      update.missing.length ? h("p", null, words.waits(update.missing.join("; "))) : null,
      h("p", { class: "small" }, words.by(last.by, ago)),
    ),
    failed,
  ];
}

/** Choosing a file, sending it, and having it installed. */
function sendPart() {
  const progress = h("p", { role: "status", class: "quiet" });
  const file = field(words.file, h("input", { type: "file", accept: ".raucb" }));
  const input = /** @type {HTMLInputElement} */ (file.input);
  const sending = form({ button: words.sendButton, busy: words.sendButton }, [file.element], async () => {
    const chosen = input.files?.[0];
    if (!chosen) return file.wrong(words.needFile);
    try {
      await send(chosen, (percent) => fill(progress, words.sending(percent)));
    } finally {
      fill(progress);
    }
    input.value = "";
  });
  const older = check(words.older);
  const installing = form({ button: words.install, busy: words.installing }, [h("p", null, words.installAsk), older.element], async () => {
    await post(`${PATH}/install`, { downgrade: older.input.checked });
  });
  const there = h("p", null);
  const removing = form({ button: words.drop, busy: words.dropping }, [], async () => {
    await ask("DELETE", `${PATH}/upload`);
  });
  const waiting = h("div", null, there, installing, removing);
  const element = h("div", { class: "narrow" }, h("h2", null, words.send), h("p", null, words.sendWhy), waiting, sending, progress);
  /** @param {Update} update */
  const show = (update) => {
    const upload = update.upload;
    const isOpen = ["installing", "installed", "trial"].includes(update.last?.phase ?? "");
    element.hidden = !update.available || isOpen;
    waiting.hidden = !upload;
    installing.hidden = !upload?.complete;
    sending.hidden = Boolean(upload?.complete);
    if (upload) there.textContent = upload.complete ? words.whole(upload.label) : `${words.waiting(upload.label, percentOf(upload))} ${words.goesOn}`;
  };
  return { element, show };
}

/** @param {FirmwareUpload} upload */
const percentOf = (upload) => Math.floor((100 * upload.received) / Math.max(upload.size ?? 0, 1));

/**
 * Sends a file in pieces, from where the gateway has it already.
 *
 * @param {File} file
 * @param {(percent: number) => void} tell
 */
async function send(file, tell) {
  const label = `${file.name.slice(0, 80)} ${file.lastModified}`;
  const known = /** @type {Update} */ (await get(PATH)).upload;
  /** @type {FirmwareUpload} */
  let upload = known && known.label === label && known.size === file.size ? known : await post(`${PATH}/upload`, { size: file.size, label });
  let tries = 0;
  while (!upload.complete) {
    tell(percentOf(upload));
    const piece = file.slice(upload.received, upload.received + PIECE);
    try {
      upload = (await ask("PUT", `${PATH}/upload?offset=${upload.received}`, { bytes: piece })).body;
      tries = 0;
    } catch (error) {
      tries += 1;
      if (!(error instanceof Unreachable) || tries > TRIES) throw error;
      await new Promise((resolve) => setTimeout(resolve, WAIT_MS));
      // What was on its way may have come.
      upload = /** @type {Update} */ (await get(PATH).catch(() => ({ upload }))).upload ?? upload;
    }
  }
}
