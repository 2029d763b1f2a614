// Pictures of cameras that were found, one after the other: each one makes the gateway ask a camera.

import { Refused, ask } from "./api.js";
import { h } from "./dom.js";
import { texts } from "./texts.js";

/** How often it is asked whether a picture has been taken, and how many times. */
const ASK_EVERY = 1000;
const ASK_TIMES = 60;

const pause = (/** @type {number} */ millis) => new Promise((resolve) => setTimeout(resolve, millis));

/** The pictures of one screen. */
export function foundPictures() {
  /** @type {Map<string, {name: string, element: HTMLElement, words: HTMLElement, failed: boolean}>} */
  const all = new Map();
  /** @type {string[]} */
  const waiting = [];
  let busy = false;
  let left = false;

  const take = async () => {
    if (busy) return;
    busy = true;
    // What was drawn just now is put into the page first.
    await pause(0);
    for (let id = waiting.shift(); id !== undefined && !left; id = waiting.shift()) await one(id);
    busy = false;
  };
  const one = async (/** @type {string} */ id) => {
    const it = all.get(id);
    if (!it) return;
    const path = `/api/v1/discovery/${encodeURIComponent(id)}/snapshot`;
    it.words.textContent = texts.cameras.pictureWait;
    // Added meanwhile, or gone: nobody needs its picture any more.
    for (let tries = 0; tries < ASK_TIMES && it.element.isConnected && !left; tries += 1) {
      while (document.visibilityState !== "visible" && !left) await pause(ASK_EVERY);
      try {
        if ((await ask("GET", path)).status === 200) return show(it, path);
      } catch (error) {
        if (!(error instanceof Refused && error.status === 503)) {
          it.failed = true;
          it.words.textContent = error instanceof Error ? error.message : String(error);
          return;
        }
      }
      await pause(ASK_EVERY);
    }
    if (!it.element.isConnected) all.delete(id);
  };
  const show = (/** @type {{name: string, element: HTMLElement}} */ it, /** @type {string} */ path) => {
    const image = h("img", { alt: texts.cameras.pictureOf(it.name), src: `${path}?at=${Date.now()}` });
    image.onload = () => {
      it.element.classList.remove("none");
      it.element.dataset["found"] = "yes";
    };
    it.element.append(image);
  };

  return {
    /** The same element each time, so that a list that is drawn anew asks no camera again. @param {string} id @param {string} name */
    of: (id, name) => {
      const known = all.get(id);
      if (known) return known.element;
      const words = h("p", null, texts.cameras.pictureWait);
      const element = h("div", { class: "picture none" }, words);
      all.set(id, { name, element, words, failed: false });
      waiting.push(id);
      void take();
      return element;
    },
    /** Those that could not be had are asked for once more. */
    again: () => {
      for (const [id, it] of all) {
        if (it.failed) waiting.push(id);
        it.failed = false;
      }
      void take();
    },
    leave: () => {
      left = true;
    },
  };
}
