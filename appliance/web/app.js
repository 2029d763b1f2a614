// The frame: who is there, where one is (the address tells), and what is always in sight.

import { ask, get, useSession, whenLoggedOut } from "./api.js";
import { addByHandScreen, addScreen } from "./add.js";
import { bundleScreen } from "./bundle.js";
import { cameraScreen } from "./camera.js";
import { camerasScreen } from "./cameras.js";
import { changeSheet, goOn, offer } from "./change.js";
import { claimScreen, signInScreen } from "./door.js";
import { fill, h, problem, region } from "./dom.js";
import { certificateScreen, certificatesScreen } from "./certificate.js";
import { forgetSamples, keepSample } from "./chart.js";
import { eventsScreen } from "./events.js";
import { takeHanded } from "./handed.js";
import { helpScreen } from "./help.js";
import { networkScreen } from "./network.js";
import { peopleScreen } from "./people.js";
import { siteScreen } from "./site.js";
import { follow, lastHeard, start, stop } from "./store.js";
import { texts } from "./texts.js";
import { trialScreen } from "./trial.js";
import { updatesScreen } from "./updates.js";
import { addUpstreamScreen, upstreamsScreen } from "./upstreams.js";
import { overall, shape, span } from "./words.js";

/** @typedef {import("./types.js").Session} Session */
/** @typedef {import("./types.js").Status} Status */
/**
 * What a screen gets.
 * @typedef {object} Place
 * @property {string[]} parts the address behind its first word
 * @property {Session} session
 * @property {(listener: (status: Status) => void) => void} onStatus called with each status while the screen is shown
 * @property {(leave: () => void) => void} onLeave
 * @property {() => void} signOut
 */
/** @typedef {(place: Place) => HTMLElement | Promise<HTMLElement>} Screen */

const RANK = { viewer: 0, operator: 1, installer: 2, admin: 3 };
/**
 * By the first words of the address: the screen, whose place it belongs to, and the least role.
 * @type {[RegExp, Screen, string, keyof typeof RANK][]}
 */
const SCREENS = [
  [/^cameras$/, camerasScreen, "cameras", "viewer"],
  [/^cameras\/([^/]+)$/, cameraScreen, "cameras", "viewer"],
  [/^cameras\/([^/]+)\/upstream$/, addUpstreamScreen, "upstreams", "installer"],
  [/^add\/by-hand$/, addByHandScreen, "cameras", "installer"],
  [/^add\/([^/]+)$/, addScreen, "cameras", "installer"],
  [/^upstreams$/, upstreamsScreen, "upstreams", "operator"],
  [/^upstreams\/add$/, addUpstreamScreen, "upstreams", "installer"],
  [/^upstreams\/test\/([^/]+)\/([^/]+)$/, trialScreen, "upstreams", "installer"],
  [/^site$/, siteScreen, "site", "operator"],
  [/^site\/network$/, networkScreen, "site", "operator"],
  [/^site\/updates$/, updatesScreen, "site", "operator"],
  [/^site\/bundle$/, bundleScreen, "site", "installer"],
  [/^site\/events$/, eventsScreen, "site", "operator"],
  [/^site\/certificate$/, certificatesScreen, "site", "operator"],
  [/^site\/certificate\/([^/]+)$/, certificateScreen, "site", "operator"],
  [/^site\/history$/, helpScreen, "site", "admin"],
  [/^people$/, peopleScreen, "people", "viewer"],
];
/** @type {[string, string, keyof typeof RANK][]} */
const PLACES = [
  ["cameras", texts.places.cameras, "viewer"],
  ["upstreams", texts.places.upstreams, "operator"],
  ["site", texts.places.site, "operator"],
  ["people", texts.places.people, "viewer"],
];

const app = /** @type {HTMLElement} */ (document.getElementById("app"));
/** @type {Session | null} */
let session = null;
/** What the screen that is shown wants done when it goes. @type {(() => void)[]} */
let leaving = [];
let opened = 0;
/** Ends what the frame of the session before followed. */
let unfollow = () => {};

function leave() {
  for (const done of leaving.splice(0)) done();
}

/** @param {Session} entered */
function enter(entered) {
  session = entered;
  useSession(session);
  start();
  drawFrame();
  goOn();
  void show();
}

/** @param {boolean} ended */
function askToSignIn(ended) {
  session = null;
  useSession(null);
  forgetSamples();
  stop();
  leave();
  document.body.classList.remove("inside");
  document.title = `${texts.signIn.title} - ${texts.product}`;
  fill(app, signInScreen(enter, ended));
}

async function signOut() {
  try {
    await ask("DELETE", "/api/v1/session");
  } finally {
    history.replaceState(null, "", "/");
    askToSignIn(false);
  }
}

const main = h("main", { id: "main", tabindex: "-1" });
const places = h("nav", { class: "places", "aria-label": texts.product });

function drawFrame() {
  if (!session) return;
  document.body.classList.add("inside");
  const state = region(h("span", null), (/** @type {{level: import("./types.js").Level, word: string, href: string}} */ it) =>
    h("a", { class: `status ${it.level}`, href: it.href }, shape(it.level), h("span", null, it.word)),
  );
  const lostNote = h("div", { role: "alert" });
  unfollow();
  unfollow = follow((status, lost) => {
    if (status) {
      keepSample(status);
      state.show(overall(status));
      if (session) offer(status, RANK[session.role] >= RANK.installer);
    }
    fill(lostNote, lost ? h("div", { class: "note wait" }, h("p", null, h("strong", null, texts.lost)), h("p", null, texts.lostSince(span((Date.now() - lastHeard()) / 1000)))) : null);
  });
  const top = h("header", { class: "top" }, h("a", { class: "name", href: "#/cameras" }, location.hostname), state);
  const skip = h("a", { class: "skip", href: "#main", onclick: (/** @type {Event} */ event) => { event.preventDefault(); main.focus(); } }, texts.skip);
  fill(app, skip, top, places, lostNote, main, changeSheet());
}

async function show() {
  if (!session) return;
  const who = session;
  const path = location.hash.replace(/^#\/?/, "") || "cameras";
  const found = SCREENS.find(([pattern]) => pattern.test(path));
  const [pattern, screen, place, least] = found ?? [/^$/, nothingScreen, "", "viewer"];
  leave();
  opened += 1;
  const mine = opened;
  fill(places, PLACES.filter(([, , role]) => RANK[who.role] >= RANK[role]).map(([name, text]) => h("a", { href: `#/${name}`, "aria-current": name === place ? "page" : false }, text)));
  fill(main, h("p", { class: "quiet" }, texts.loading));
  const parts = (pattern.exec(path) ?? []).slice(1).map(decodeURIComponent);
  /** @type {(() => void)[]} */
  const left = [];
  /** @type {Place} */
  const given = {
    parts,
    session: who,
    onStatus: (listener) => left.push(follow((status) => status && listener(status))),
    onLeave: (done) => left.push(done),
    signOut: () => void signOut(),
  };
  /** @type {HTMLElement} */
  let element;
  try {
    element = RANK[who.role] >= RANK[least] ? await screen(given) : h("div", null, h("h1", null, texts.notYours));
  } catch (error) {
    element = h("div", null, problem(error));
  }
  if (mine !== opened || !session) {
    for (const done of left) done();
    return;
  }
  leaving = left;
  fill(main, element);
  document.title = `${main.querySelector("h1")?.textContent ?? texts.product} - ${location.hostname}`;
  window.scrollTo(0, 0);
  if (mine > 1) main.focus({ preventScroll: true });
}

/** @type {Screen} */
function nothingScreen() {
  return h("div", null, h("h1", null, texts.nothingHere), h("p", null, h("a", { class: "button", href: "#/cameras" }, texts.toCameras)));
}

async function begin() {
  try {
    const answer = /** @type {import("./types.js").Start} */ (await get("/api/v1/start"));
    if (answer.session) enter(answer.session);
    else if (answer.claimed) askToSignIn(false);
    else fill(app, claimScreen(enter));
  } catch (error) {
    fill(app, h("main", { class: "narrow" }, problem(error)));
    setTimeout(begin, 3000);
  }
}

whenLoggedOut(() => askToSignIn(true));
window.addEventListener("hashchange", () => {
  const handed = takeHanded();
  // A page that waits to be claimed begins again, with the code.
  if (handed && !session) void begin();
  else void show();
});
takeHanded();
void begin();
