// Before one is in: claiming a new gateway, and signing in.

import { Refused, post } from "./api.js";
import { check, field, form, h } from "./dom.js";
import { handedClaim } from "./handed.js";
import { texts } from "./texts.js";

/** @typedef {import("./types.js").Session} Session */

/**
 * What is to be said of a new password, and whether it will be taken.
 *
 * @param {string} user
 * @param {string} password
 * @returns {{text: string, ok: boolean}}
 */
export function strength(user, password) {
  const characters = [...password];
  const different = new Set(characters).size;
  if (!characters.length) return { text: texts.strength.none, ok: false };
  if (characters.length < 10) return { text: texts.strength.short(10 - characters.length), ok: false };
  if (different < 5) return { text: texts.strength.same, ok: false };
  if (user.length >= 3 && password.toLowerCase().includes(user.toLowerCase())) return { text: texts.strength.name, ok: false };
  return { text: characters.length >= 14 && different >= 9 ? texts.strength.strong : texts.strength.good, ok: true };
}

/**
 * A field for a password that is told how good it is.
 *
 * @param {string} label
 * @param {() => string} user whose it will be
 */
export function newPasswordField(label, user) {
  const input = h("input", { type: "password", autocomplete: "new-password", required: true, maxlength: 256 });
  const password = field(label, input, texts.claim.passwordHint);
  const said = h("p", { class: "hint", role: "status" });
  const show = check(texts.claim.show);
  show.input.addEventListener("change", () => {
    input.type = show.input.checked ? "text" : "password";
  });
  input.addEventListener("input", () => {
    said.textContent = strength(user(), input.value).text;
  });
  password.element.append(said, show.element);
  /** Whether it can be sent; says why not. */
  const isGood = () => {
    const verdict = strength(user(), input.value);
    if (!verdict.ok) password.wrong(verdict.text || texts.signIn.needPassword);
    return verdict.ok;
  };
  return { element: password.element, input, isGood, wrong: password.wrong };
}

const nameInput = () => h("input", { autocomplete: "username", autocapitalize: "none", spellcheck: "false", required: true, maxlength: 64 });

/**
 * The page of a gateway that nobody has claimed.
 *
 * @param {(session: Session) => void} enter
 */
export function claimScreen(enter) {
  const code = field(
    texts.claim.code,
    h("input", { autocomplete: "off", autocapitalize: "characters", spellcheck: "false", required: true, maxlength: 32, value: handedClaim() }),
    texts.claim.codeHint,
  );
  const user = field(texts.claim.user, nameInput(), texts.claim.userHint);
  const password = newPasswordField(texts.claim.password, () => user.input.value.trim());
  const send = async () => {
    if (!code.input.value.trim()) return code.wrong(texts.claim.needCode);
    if (!user.input.value.trim()) return user.wrong(texts.claim.needUser);
    if (!password.isGood()) return;
    const wish = { code: code.input.value.trim(), user: user.input.value.trim(), password: password.input.value };
    try {
      enter(await post("/api/v1/claim", wish));
    } catch (error) {
      if (!(error instanceof Refused)) throw error;
      if (error.status === 401) return code.wrong(error.message);
      for (const problem of error.problems) {
        if (problem.path === "password") return password.wrong(error.message);
        if (problem.path === "name") return user.wrong(error.message);
      }
      throw error.status === 409 ? new Error(texts.claim.already) : error;
    }
  };
  return h(
    "main",
    { class: "narrow", id: "main", tabindex: "-1" },
    h("h1", null, texts.claim.title),
    h("p", { class: "quiet" }, texts.claim.intro),
    form({ button: texts.claim.button, busy: texts.claim.busy }, [code.element, user.element, password.element], send),
  );
}

/**
 * @param {(session: Session) => void} enter
 * @param {boolean} ended whether a session has just ended
 */
export function signInScreen(enter, ended) {
  const user = field(texts.signIn.user, nameInput());
  const password = field(texts.signIn.password, h("input", { type: "password", autocomplete: "current-password", required: true, maxlength: 256 }));
  const send = async () => {
    if (!user.input.value.trim()) return user.wrong(texts.signIn.needUser);
    if (!password.input.value) return password.wrong(texts.signIn.needPassword);
    try {
      enter(await post("/api/v1/session", { user: user.input.value.trim(), password: password.input.value }));
    } catch (error) {
      if (error instanceof Refused && error.status === 401) return password.wrong(error.message);
      throw error;
    }
  };
  return h(
    "main",
    { class: "narrow", id: "main", tabindex: "-1" },
    h("h1", null, texts.signIn.title),
    ended ? h("div", { class: "note wait" }, h("p", null, texts.signIn.ended)) : null,
    form({ button: texts.signIn.button, busy: texts.signIn.busy }, [user.element, password.element], send),
    h("details", null, h("summary", null, texts.signIn.forgotten), h("p", null, texts.signIn.forgottenHow)),
  );
}
