// Where cameras are sent: all of it, one camera's part, and adding one more.

import { get } from "./api.js";
import { change, say } from "./change.js";
import { field, fill, form, h, region } from "./dom.js";
import { lastStatus } from "./store.js";
import { texts } from "./texts.js";
import { startTrial } from "./trial.js";
import { note, pushHealth, statusOf } from "./words.js";

/** @typedef {import("./types.js").Push} Push */

/** Whether a push of the config is this one of the status: by its id, and one that has none by its address. */
const isIt = (/** @type {any} */ push, /** @type {string} */ id, /** @type {string} */ url) => (push.id ? push.id === id : push.url === url);

/**
 * A name for a push to this address that its mountpoint has not yet.
 *
 * @param {string} address
 * @param {any[]} pushes
 */
function freeId(address, pushes) {
  const host = address.replace(/^[a-z]+:\/\//i, "").replace(/^[^@/]*@/, "").split(/[/:?]/)[0] ?? "";
  const base = host.replace(/[^A-Za-z0-9._-]/g, "-").slice(0, 56) || "upstream";
  let id = base;
  for (let number = 2; pushes.some((push) => push.id === id); number += 1) id = `${base}-${number}`;
  return id;
}

/**
 * The upstreams of one camera.
 *
 * @param {string} name
 * @param {boolean} mayChange
 */
export function pushList(name, mayChange) {
  return region(h("div", null), (/** @type {{pushes: Record<string, Push>, now: string}} */ { pushes, now }) => {
    const all = Object.entries(pushes);
    if (!all.length) return h("p", { class: "quiet" }, texts.camera.nowhere);
    return h("ul", { class: "list" }, all.map(([id, push]) => pushLine(name, id, push, now, mayChange)));
  });
}

/**
 * @param {string} name
 * @param {string} id
 * @param {Push} push
 * @param {string} now
 * @param {boolean} mayChange
 */
function pushLine(name, id, push, now, mayChange) {
  const health = pushHealth(push, now);
  const remove = async () => {
    await change((config) => {
      const list = config.mountpoints[name].push;
      const index = list.findIndex((/** @type {any} */ it) => isIt(it, id, push.url));
      if (index >= 0) list.splice(index, 1);
    });
    say("good", texts.upstreams.removed);
  };
  const asks = h("div", { class: "note bad", hidden: true }, h("p", null, texts.upstreams.removeAsk(push.url)), h("div", { class: "row" }, h("button", { type: "button", class: "danger", onclick: () => remove().catch((error) => say("bad", String(error.message))) }, texts.upstreams.remove)));
  return h(
    "li",
    null,
    h("p", null, push.url),
    statusOf(health),
    note(health, now),
    mayChange
      ? h(
          "div",
          { class: "row" },
          h("a", { class: "button", href: `#/upstreams/test/${encodeURIComponent(name)}/${encodeURIComponent(id)}`, "aria-label": `${texts.upstreams.test} ${push.url}` }, texts.upstreams.test),
          h("button", { type: "button", class: "danger", "aria-label": `${texts.upstreams.remove} ${push.url}`, onclick: () => { asks.hidden = !asks.hidden; } }, texts.upstreams.remove),
        )
      : null,
    asks,
  );
}

/** @type {import("./app.js").Screen} */
export function upstreamsScreen(place) {
  const mayChange = place.session.role === "installer" || place.session.role === "admin";
  const none = h("p", { class: "quiet" });
  const list = h("div", null);
  /** @type {Map<string, {element: HTMLElement, pushes: ReturnType<typeof pushList>}>} */
  const parts = new Map();
  const add = h("a", { class: "button main wide", href: "#/upstreams/add" }, texts.upstreams.add);
  place.onStatus((status) => {
    const cameras = Object.entries(status.mountpoints);
    const sent = cameras.filter(([, it]) => Object.keys(it.pushes).length);
    none.hidden = sent.length > 0;
    none.textContent = cameras.length ? texts.upstreams.none : texts.upstreams.noCamera;
    add.hidden = !mayChange || !cameras.length;
    for (const [name, part] of parts) {
      if (!sent.some(([it]) => it === name)) {
        part.element.remove();
        parts.delete(name);
      }
    }
    for (const [name, mountpoint] of sent) {
      let part = parts.get(name);
      if (!part) {
        const pushes = pushList(name, mayChange);
        part = { pushes, element: h("section", null, h("h2", null, texts.upstreams.of(name)), pushes) };
        parts.set(name, part);
        list.append(part.element);
      }
      part.pushes.show({ pushes: mountpoint.pushes, now: status.at });
    }
  });
  return h("div", null, h("h1", null, texts.upstreams.title), none, list, h("div", { class: "foot" }, add));
}

/** @type {import("./app.js").Screen} */
export async function addUpstreamScreen(place) {
  const chosen = place.parts[0];
  const config = await get("/api/v1/config");
  const names = Object.keys(config.mountpoints);
  const camera = h("select", null, ...names.map((name) => h("option", { value: name, selected: name === chosen }, name)));
  const cameraField = field(texts.upstreams.camera, camera);
  const url = field(texts.upstreams.url, h("input", { type: "url", autocomplete: "off", autocapitalize: "none", spellcheck: "false", maxlength: 1024 }), texts.upstreams.urlHint);
  const told = h("div", null);
  const read = () => {
    const address = url.input.value.trim();
    if (/^(rtmps?|kmps?):\/\/[^/]/i.test(address)) return address;
    url.wrong(texts.upstreams.urlBad);
    return undefined;
  };
  const test = h("button", { type: "button", class: "wide", onclick: async () => {
    const address = read();
    if (!address) return;
    test.disabled = true;
    fill(told, h("p", { class: "quiet small" }, texts.trial.warn));
    await startTrial(told, { url: address }, place, lastStatus()?.mountpoints[camera.value]?.stream?.bitrate);
    test.disabled = false;
  } }, texts.upstreams.testFirst);
  const send = async () => {
    const address = read();
    if (!address) return;
    const name = camera.value;
    await change((now) => {
      const mountpoint = now.mountpoints[name];
      const pushes = mountpoint.push ?? [];
      mountpoint.push = [...pushes, { id: freeId(address, pushes), url: address }];
    });
    location.hash = `#/cameras/${encodeURIComponent(name)}`;
  };
  return h(
    "div",
    { class: "narrow" },
    h("h1", null, texts.upstreams.addTitle),
    form({ button: texts.upstreams.button, busy: texts.upstreams.busy }, [cameraField.element, url.element, h("div", { class: "foot" }, test), told], send),
    h("a", { class: "button wide", href: chosen ? `#/cameras/${encodeURIComponent(chosen)}` : "#/upstreams" }, texts.cancel),
  );
}
