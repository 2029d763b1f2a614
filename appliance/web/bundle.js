// A signed change of the fleet manager for a gateway that he cannot reach: scanned, pasted or chosen as a file.

import { ask, sentence } from "./api.js";
import { say, sendChange } from "./change.js";
import { field, fill, form, h } from "./dom.js";
import { forgetParts, handedBundle, missingParts, takeBundle } from "./handed.js";
import { texts } from "./texts.js";

const words = texts.bundle;
/** Bytes of a bundle at most, as the gateway takes them. */
const MOST_BYTES = 1 << 20;

/** @typedef {{number: number, expires: string, to: {devices?: string[], groups?: string[]}, note?: string, config?: object, patch?: object}} Says */

/** @type {import("./app.js").Screen} */
export function bundleScreen(place) {
  const pasted = field(words.text, h("input", { autocomplete: "off", autocapitalize: "none", spellcheck: "false", maxlength: MOST_BYTES }), words.textHint);
  const file = field(words.file, h("input", { type: "file" }));
  const chooser = /** @type {HTMLInputElement} */ (file.input);
  const parts = h("div", { role: "status" });
  const says = h("div", { role: "status" });
  let text = "";

  const show = () => {
    const waits = missingParts();
    const forget = h("button", { type: "button", onclick: () => {
      forgetParts();
      show();
    } }, words.forget);
    fill(parts, waits ? h("div", { class: "note wait" }, h("p", null, words.parts(waits.of - waits.missing.length, waits.of, waits.missing.join(", "))), forget) : null);
    sending.hidden = !text;
    if (!text) return fill(says);
    const it = read(text);
    fill(says, it ? facts(it) : h("div", { class: "note bad" }, h("p", null, words.unreadable)));
    sending.hidden = !it;
  };
  const take = (/** @type {string} */ typed) => {
    const trimmed = typed.trim();
    if (trimmed.length > MOST_BYTES || (trimmed && !takeBundle(trimmed))) return pasted.wrong(words.bad);
    pasted.wrong("");
    text = handedBundle();
    if (trimmed && !text) pasted.input.value = "";
    show();
  };
  pasted.input.addEventListener("change", () => take(pasted.input.value));
  chooser.addEventListener("change", async () => {
    const chosen = chooser.files?.[0];
    if (!chosen) return;
    if (chosen.size > MOST_BYTES) return file.wrong(words.bad);
    take(await chosen.text());
  });
  const sending = form({ button: words.button, busy: words.busy }, [], async () => {
    const told = await sendChange(() => ask("POST", "/api/v1/bundle", { bytes: new Blob([text]) }));
    text = "";
    pasted.input.value = "";
    chooser.value = "";
    show();
    say("good", told?.state === "known" ? words.known : words.taken);
  });
  text = handedBundle();
  show();
  // The next code may be scanned in another tab.
  window.addEventListener("storage", show);
  place.onLeave(() => window.removeEventListener("storage", show));
  return h("div", null, h("h1", null, words.title), h("p", null, words.why), parts, says, h("div", { class: "narrow" }, sending, pasted.element, file.element), h("div", { class: "row" }, h("a", { class: "button", href: "#/site" }, texts.back)));
}

/**
 * What a bundle says of itself; whether that is to be believed, the gateway finds out.
 *
 * @param {string} text
 * @returns {Says & {key: string} | null}
 */
function read(text) {
  const [form = "", key = "", payload = ""] = text.split(".");
  try {
    const bytes = Uint8Array.from(atob(payload.replaceAll("-", "+").replaceAll("_", "/")), (character) => character.charCodeAt(0));
    const says = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes));
    return form === "fgb1" && typeof says?.number === "number" && typeof says.to === "object" ? { ...says, key } : null;
  } catch {
    return null;
  }
}

/** @param {Says & {key: string}} says */
function facts(says) {
  const whom = [...(says.to.devices ?? []), ...(says.to.groups ?? []).map(words.group)];
  const all = [
    [words.number, String(says.number)],
    [words.key, says.key],
    [words.to, whom.slice(0, 5).join(", ") + (whom.length > 5 ? words.more(whom.length - 5) : "")],
    [words.expires, new Date(says.expires).toLocaleString()],
    [words.changes, says.config ? words.whole : Object.keys(says.patch ?? {}).join(", ")],
    ...(says.note ? [[words.note, says.note]] : []),
  ];
  return h("div", null, h("h2", null, words.says), h("dl", { class: "facts" }, all.map(([term, value]) => h("div", { class: (value?.length ?? 0) > 18 ? "long" : false }, h("dt", null, term), h("dd", null, value)))), h("p", { class: "quiet" }, sentence(words.unproven)));
}
