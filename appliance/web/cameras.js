// All cameras: those on this gateway as pictures, and those that were found.

import { ask, get } from "./api.js";
import { field, form, h, region } from "./dom.js";
import { foundPictures } from "./found.js";
import { livePicture } from "./picture.js";
import { texts } from "./texts.js";
import { cameraHealth, note, pushHealth, rate, statusOf } from "./words.js";

/** @typedef {import("./types.js").Camera} Camera */
/** @typedef {import("./types.js").Mountpoint} Mountpoint */
/** @typedef {import("./types.js").Status} Status */

const LOOK_EVERY = 5000;

/** The name that people know a found camera by. @param {Camera} camera */
export const nameOf = (camera) => camera.names[0] || [camera.make, camera.model].filter(Boolean).join(" ") || camera.address || camera.id;

/** Where it is, for a person. @param {Camera} camera */
const placeOf = (camera) => [camera.names[0] ? [camera.make, camera.model].filter(Boolean).join(" ") : "", camera.address ?? (camera.device ? texts.cameras.local : "")].filter(Boolean).join(", ");

/**
 * Whether a mountpoint takes its stream from there.
 *
 * @param {Camera} camera
 * @param {Mountpoint[]} mountpoints
 */
export function isAdded(camera, mountpoints) {
  const host = camera.address ? `${camera.address.includes(":") ? `[${camera.address}]` : camera.address}` : "";
  return mountpoints.some(({ source }) => {
    const from = source.from ?? "";
    if (camera.device && from.includes(camera.device)) return true;
    const authority = from.replace(/^[a-z0-9+]+:\/\//i, "").replace(/^[^@/]*@/, "").split("/")[0] ?? "";
    return host !== "" && (authority === host || authority.startsWith(`${host}:`));
  });
}

/** @type {import("./app.js").Screen} */
export function camerasScreen(place) {
  const mine = h("ul", { class: "grid" });
  const none = h("p", { class: "quiet" }, texts.cameras.none);
  /** @type {Map<string, {element: HTMLElement, show: (mountpoint: Mountpoint, now: string) => void}>} */
  const cards = new Map();
  /** @type {Mountpoint[]} */
  let mountpoints = [];
  const found = foundPart(place, () => mountpoints);

  place.onStatus((status) => {
    const names = Object.keys(status.mountpoints).filter((name) => !name.endsWith("*"));
    mountpoints = Object.values(status.mountpoints);
    none.hidden = names.length > 0;
    for (const [name, card] of cards) {
      if (!names.includes(name)) {
        card.element.remove();
        cards.delete(name);
      }
    }
    for (const name of names) {
      const card = cards.get(name) ?? newCard(name);
      if (!cards.has(name)) {
        cards.set(name, card);
        mine.append(card.element);
      }
      card.show(/** @type {Mountpoint} */ (status.mountpoints[name]), status.at);
    }
    found?.again();
  });
  return h("div", null, h("h1", null, texts.cameras.title), none, mine, found?.element ?? null);
}

/** @param {string} name */
function newCard(name) {
  const picture = livePicture(name, { width: 480, every: 4000 });
  const words = region(h("div", { class: "body" }), (/** @type {{mountpoint: Mountpoint, now: string}} */ { mountpoint, now }) => {
    const health = cameraHealth(mountpoint, now);
    const pushes = Object.values(mountpoint.pushes).map((push) => pushHealth(push, now));
    const delivering = pushes.filter((push) => push.level === "good").length;
    const worst = pushes.find((push) => push.level === "bad") ?? pushes.find((push) => push.level === "wait");
    const facts = [
      mountpoint.stream?.bitrate ? rate(mountpoint.stream.bitrate) : "",
      pushes.length ? texts.cameras.upstreams(delivering, pushes.length) : texts.cameras.noUpstream,
    ];
    return [
      h("h3", null, name),
      statusOf(health),
      h("p", { class: "quiet small" }, facts.filter(Boolean).join(", ")),
      note(health, now) ?? (worst ? note(worst, now) : null),
    ];
  });
  const element = h("li", null, h("a", { class: "card", href: `#/cameras/${encodeURIComponent(name)}` }, picture, words));
  const show = (/** @type {Mountpoint} */ mountpoint, /** @type {string} */ now) => {
    picture.show(Boolean(mountpoint.stream?.tracks.some((track) => track.kind === "video")));
    // Counters that rise all the time are no reason to draw anew.
    const { counters, players, ...rest } = mountpoint;
    void counters;
    void players;
    words.show({ mountpoint: { ...rest, counters: { units: 0, bytes: 0, dropped_units: 0 }, players: 0, pushes: quiet(rest.pushes) }, now: nowFor(mountpoint, now) });
  };
  return { element, show };
}

/** @param {Mountpoint["pushes"]} pushes */
const quiet = (pushes) =>
  Object.fromEntries(Object.entries(pushes).map(([id, push]) => [id, { ...push, counters: { bytes: 0, dropped_units: 0 } }]));

/** The time matters only where something is counted down. @param {Mountpoint} mountpoint @param {string} now */
const nowFor = (mountpoint, now) => {
  const states = [mountpoint.source.activity?.state, ...Object.values(mountpoint.pushes).map((push) => push.state)];
  const isWell = states.every((state) => state === undefined || state === "running" || state === "waiting") && (mountpoint.picture?.verdict ?? "ok") === "ok";
  return isWell ? mountpoint.stream?.since ?? now : now;
};

/**
 * The cameras that were found; nothing for those who may not see them.
 *
 * @param {import("./app.js").Place} place
 * @param {() => Mountpoint[]} mountpoints
 */
function foundPart(place, mountpoints) {
  if (place.session.role === "viewer") return null;
  const mayAdd = place.session.role !== "operator";
  /** @type {Camera[]} */
  let cameras = [];
  let searching = true;
  const pictures = foundPictures();
  const list = region(h("ul", { class: "grid" }), (/** @type {Camera[]} */ shown) => shown.map((camera) => foundCard(camera, mayAdd, pictures.of(camera.id, nameOf(camera)))));
  const nothing = h("p", { class: "quiet" });
  const again = () => {
    const free = cameras.filter((camera) => !camera.gone && !isAdded(camera, mountpoints()));
    list.show(free.map((camera) => ({ ...camera, last_seen: undefined, first_seen: undefined })));
    nothing.hidden = free.length > 0;
    nothing.textContent = searching ? texts.cameras.searching : texts.cameras.nothingFound;
  };
  const look = async () => {
    const answer = /** @type {import("./types.js").Discovery} */ (await get("/api/v1/discovery?limit=300"));
    cameras = answer.cameras;
    searching = answer.search.searching;
    again();
  };
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  let timer;
  let left = false;
  const turn = async () => {
    if (document.visibilityState === "visible") await look().catch(() => {});
    if (!left) timer = setTimeout(turn, LOOK_EVERY);
  };
  void turn();
  place.onLeave(() => {
    left = true;
    clearTimeout(timer);
    pictures.leave();
  });

  const button = h("button", { type: "button", onclick: async () => {
    button.disabled = true;
    button.textContent = texts.cameras.looking;
    await ask("POST", "/api/v1/discovery/scan", { body: {} }).catch(() => {});
    await new Promise((resolve) => setTimeout(resolve, 2000));
    await look().catch(() => {});
    pictures.again();
    button.disabled = false;
    button.textContent = texts.cameras.lookAgain;
  } }, texts.cameras.lookAgain);
  const element = h(
    "section",
    { "aria-label": texts.cameras.found },
    h("h2", null, texts.cameras.found),
    nothing,
    list,
    mayAdd ? h("div", { class: "row" }, button, h("a", { class: "button", href: "#/add/by-hand" }, texts.cameras.other)) : null,
    mayAdd ? h("details", null, h("summary", null, texts.cameras.byAddress), scanForm(look)) : null,
  );
  return { element, again };
}

/** @param {() => Promise<void>} look */
function scanForm(look) {
  const address = field(texts.cameras.scanTitle, h("input", { inputmode: "decimal", autocomplete: "off", maxlength: 45 }), texts.cameras.scanHint);
  const said = h("p", { role: "status" });
  const send = async () => {
    said.textContent = "";
    const wanted = address.input.value.trim();
    if (!/^[0-9a-fA-F.:]+$/.test(wanted)) return address.wrong(texts.cameras.scanBad);
    await ask("POST", "/api/v1/discovery/scan", { body: { addresses: [wanted] } });
    said.textContent = texts.cameras.scanned;
    await look();
  };
  return form({ button: texts.cameras.scanButton, busy: texts.cameras.looking }, [address.element, said], send);
}

/**
 * @param {Camera} camera
 * @param {boolean} mayAdd
 * @param {HTMLElement} picture
 */
function foundCard(camera, mayAdd, picture) {
  return h(
    "li",
    null,
    h(
      "div",
      { class: "card" },
      picture,
      h(
        "div",
        { class: "body" },
        h("h3", null, nameOf(camera)),
        h("p", { class: "quiet small" }, placeOf(camera)),
        mayAdd ? h("a", { class: "button main", href: `#/add/${encodeURIComponent(camera.id)}`, "aria-label": `${texts.cameras.add} ${nameOf(camera)}` }, texts.cameras.add) : null,
      ),
    ),
  );
}
