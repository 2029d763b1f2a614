// Adding a camera: a found one in one step, or something else by hand.

import { Refused, ask, get } from "./api.js";
import { isAdded, nameOf } from "./cameras.js";
import { change } from "./change.js";
import { check, field, form, h } from "./dom.js";
import { lastStatus } from "./store.js";
import { texts } from "./texts.js";

/** @typedef {import("./types.js").Camera} Camera */

const NAME = /^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$/;

/**
 * What people call it, as a name that fits into an address.
 *
 * @param {string} text
 */
export function slug(text) {
  const plain = text.normalize("NFKD").replace(/[\u0300-\u036f]/g, "").replace(/[^A-Za-z0-9._-]+/g, "-");
  return plain.replace(/^[^A-Za-z0-9]+/, "").replace(/-+$/, "").slice(0, 64).toLowerCase();
}

/**
 * A name like `wanted` that no mountpoint has.
 *
 * @param {string} wanted
 */
function freeName(wanted) {
  const taken = new Set(Object.keys(lastStatus()?.mountpoints ?? {}));
  const base = wanted || "camera";
  let name = base;
  for (let number = 2; taken.has(name); number += 1) name = `${base}-${number}`;
  return name;
}

/**
 * Where players or encoders find a mountpoint, as far as the gateway listens there.
 *
 * @param {string} name
 */
export function rtmpAddress(name) {
  const bound = lastStatus()?.listeners?.rtmp?.addresses?.[0];
  if (!bound) return `/live/${name}`;
  const at = bound.lastIndexOf(":");
  const port = bound.slice(at + 1);
  const isLoopback = /^(127\.|\[::1\])/.test(bound);
  const host = isLoopback ? bound.slice(0, at) : location.hostname;
  return `rtmp://${host}${port === "1935" ? "" : `:${port}`}/live/${name}`;
}

/**
 * The field for a mountpoint's name, with the address that comes of it.
 *
 * @param {string} wanted
 */
function nameField(wanted) {
  const input = h("input", { autocomplete: "off", autocapitalize: "none", spellcheck: "false", maxlength: 64, value: freeName(slug(wanted)) });
  const name = field(texts.add.name, input, " ");
  const hint = /** @type {HTMLElement} */ (name.element.querySelector(".hint"));
  const tell = () => {
    hint.textContent = texts.add.nameHint(rtmpAddress(slug(input.value) || "..."));
  };
  input.addEventListener("input", tell);
  tell();
  /** The name, or nothing after saying what is wrong with it. */
  const read = () => {
    const value = slug(input.value);
    if (!NAME.test(value)) name.wrong(texts.add.nameBad);
    else if (lastStatus()?.mountpoints[value]) name.wrong(texts.add.nameTaken);
    else return value;
    return undefined;
  };
  return { element: name.element, read };
}

function loginFields() {
  const user = field(texts.add.user, h("input", { autocomplete: "off", autocapitalize: "none", spellcheck: "false", maxlength: 128, value: "admin" }));
  const password = field(texts.add.password, h("input", { type: "password", autocomplete: "off", maxlength: 128 }), texts.add.passwordHint);
  const show = check(texts.claim.show);
  show.input.addEventListener("change", () => password.input.setAttribute("type", show.input.checked ? "text" : "password"));
  password.element.append(show.element);
  return { user, password };
}

/**
 * An address with user and password in it.
 *
 * @param {string} url
 * @param {string} user
 * @param {string} password
 */
export function withLogin(url, user, password) {
  if (!user && !password) return url;
  return url.replace(/^([a-z]+:\/\/)([^@/]*@)?/i, (_, scheme) => `${scheme}${encodeURIComponent(user)}:${encodeURIComponent(password)}@`);
}

/** @param {string} name */
const goTo = (name) => {
  location.hash = `#/cameras/${encodeURIComponent(name)}`;
};

/** @type {import("./app.js").Screen} */
export async function addScreen(place) {
  const id = place.parts[0] ?? "";
  const list = /** @type {import("./types.js").Discovery} */ (await get("/api/v1/discovery?limit=300"));
  const camera = list.cameras.find((it) => it.id === id);
  if (!camera || isAdded(camera, Object.values(lastStatus()?.mountpoints ?? {}))) {
    return h("div", null, h("h1", null, camera ? texts.cameras.added : texts.add.gone), h("p", null, h("a", { class: "button", href: "#/cameras" }, texts.toCameras)));
  }
  const name = nameField(nameOf(camera));
  const device = camera.device;
  if (device) {
    const send = async () => {
      const chosen = name.read();
      if (!chosen) return;
      await change((config) => {
        config.mountpoints[chosen] = { source: { kind: "v4l2", device } };
      });
      goTo(chosen);
    };
    return screen(camera, form({ button: texts.add.button, busy: texts.add.saving }, [name.element], send));
  }
  const { user, password } = loginFields();
  const basic = check(texts.add.basic);
  const consent = h("div", { class: "note wait", hidden: true }, h("p", null, texts.add.basicWhy), basic.element);
  const send = async () => {
    const chosen = name.read();
    if (!chosen) return;
    const login = { user: user.input.value.trim() || "admin", password: password.input.value, allow_basic: basic.input.checked, address: camera.address };
    /** @type {Camera} */
    let known;
    try {
      known = (await ask("POST", `/api/v1/discovery/${encodeURIComponent(id)}/login`, { body: login })).body.camera;
    } catch (error) {
      const at = error instanceof Refused ? error.problems[0]?.path : undefined;
      if (error instanceof Refused && at === "password") return password.wrong(error.message);
      if (error instanceof Refused && at === "allow_basic") {
        consent.hidden = false;
        basic.input.focus();
        return;
      }
      throw error;
    }
    const stream = known.main;
    if (!stream) throw new Error(texts.add.noStream);
    const isOpen = known.login === "not_needed";
    const url = isOpen ? stream.url : withLogin(stream.url, login.user, login.password);
    await change((config) => {
      config.mountpoints[chosen] = { source: { kind: "rtsp", url } };
    });
    goTo(chosen);
  };
  const fields = [name.element, user.element, password.element, consent];
  return screen(camera, form({ button: texts.add.button, busy: texts.add.busy }, fields, send));
}

/**
 * @param {Camera} camera
 * @param {HTMLElement} content
 */
function screen(camera, content) {
  const facts = [[camera.make, camera.model].filter(Boolean).join(" "), camera.address ?? texts.cameras.local].filter(Boolean);
  return h("div", { class: "narrow" }, h("h1", null, texts.add.title(nameOf(camera))), h("p", { class: "quiet" }, facts.join(", ")), content, h("a", { class: "button wide", href: "#/cameras" }, texts.cancel));
}

/** @type {import("./app.js").Screen} */
export function addByHandScreen() {
  const kinds = texts.add.kinds;
  const kind = h("select", null, ...Object.entries(kinds).map(([value, text]) => h("option", { value }, text)));
  const kindField = field(texts.add.kind, kind);
  const name = nameField("camera");
  const url = field(texts.add.url, h("input", { type: "url", autocomplete: "off", autocapitalize: "none", spellcheck: "false", maxlength: 1024 }), texts.add.urlHint);
  const login = loginFields();
  login.user.input.value = "";
  const key = field(texts.add.key, h("input", { autocomplete: "off", autocapitalize: "none", spellcheck: "false", maxlength: 256 }), texts.add.keyHint);
  /** @type {Record<string, HTMLElement[]>} */
  const parts = { rtsp: [url.element, login.user.element, login.password.element], publish: [key.element], test: [] };
  const draw = () => {
    for (const [value, elements] of Object.entries(parts)) {
      for (const element of elements) element.hidden = value !== kind.value;
    }
  };
  kind.addEventListener("change", draw);
  draw();
  const send = async () => {
    const chosen = name.read();
    if (!chosen) return;
    /** @type {Record<string, unknown>} */
    const source = { kind: kind.value };
    if (kind.value === "rtsp") {
      const address = url.input.value.trim();
      if (!/^rtsps?:\/\/[^/]/i.test(address)) return url.wrong(texts.add.urlBad);
      source.url = login.user.input.value ? withLogin(address, login.user.input.value.trim(), login.password.input.value) : address;
    }
    if (kind.value === "publish" && key.input.value.trim()) source.key = key.input.value.trim();
    await change((config) => {
      config.mountpoints[chosen] = { source };
    });
    goTo(chosen);
  };
  const fields = [kindField.element, name.element, ...Object.values(parts).flat()];
  return h("div", { class: "narrow" }, h("h1", null, texts.add.byHand), form({ button: texts.add.addButton, busy: texts.add.saving }, fields, send), h("a", { class: "button wide", href: "#/cameras" }, texts.cancel));
}
