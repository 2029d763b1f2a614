// A camera's newest picture, renewed while somebody looks. The last one stays until the next is there.

import { snapshotPath } from "./api.js";
import { h } from "./dom.js";
import { texts } from "./texts.js";

/**
 * @typedef {object} LivePicture
 * @property {(live: boolean) => void} show
 * @property {() => Promise<void>} rest asks for no further one, and ends when none is on its way
 * @property {() => void} goOn after a rest
 */

/**
 * @param {string} name the mountpoint's
 * @param {{width: number, every: number, large?: boolean}} how pixels; milliseconds from one picture to the next
 * @returns {HTMLElement & LivePicture}
 */
export function livePicture(name, how) {
  const words = h("p", null, texts.picture.wait);
  const element = h("div", { class: how.large ? "picture large" : "picture" }, words);
  let live = false;
  let loading = false;
  let failures = 0;
  /** @type {HTMLImageElement | null} */
  let shown = null;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  let timer;
  let number = 0;
  let resting = false;
  let arrived = () => {};

  const later = () => {
    clearTimeout(timer);
    // A camera that has nothing to show is asked more rarely.
    timer = setTimeout(load, wasThere ? Math.min(how.every * 2 ** failures, 15_000) : 50);
  };
  let wasThere = false;
  const load = () => {
    wasThere ||= element.isConnected;
    if ((wasThere && !element.isConnected) || !live || loading || resting) return;
    // Not in the page yet, or nobody looks.
    if (!wasThere || document.visibilityState !== "visible") {
      later();
      return;
    }
    loading = true;
    number += 1;
    const next = h("img", { alt: texts.picture.of(name), src: `${snapshotPath(name, how.width)}&at=${number}` });
    next.onload = () => {
      loading = false;
      arrived();
      failures = 0;
      if (shown) shown.replaceWith(next);
      else element.append(next);
      shown = next;
      element.dataset.pictures = String(Number(element.dataset.pictures ?? 0) + 1);
      later();
    };
    next.onerror = () => {
      loading = false;
      arrived();
      failures = Math.min(failures + 1, 4);
      if (!shown) words.textContent = texts.picture.notNow;
      later();
    };
  };
  const show = (/** @type {boolean} */ isLive) => {
    element.classList.toggle("old", !isLive && shown !== null);
    if (isLive === live && isLive) return;
    live = isLive;
    if (live) {
      words.textContent = texts.picture.wait;
      failures = 0;
      load();
    } else {
      words.textContent = texts.picture.none;
      shown?.remove();
      shown = null;
    }
  };
  const rest = () => {
    resting = true;
    return /** @type {Promise<void>} */ (new Promise((resolve) => {
      arrived = resolve;
      if (!loading) resolve();
    }));
  };
  const goOn = () => {
    resting = false;
    load();
  };
  return Object.assign(element, { show, rest, goOn });
}
