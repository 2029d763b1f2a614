// A camera's newest picture, renewed while somebody looks. The last one stays until the next is there.

import { snapshotPath } from "./api.js";
import { h } from "./dom.js";
import { texts } from "./texts.js";

/**
 * @param {string} name the mountpoint's
 * @param {{width: number, every: number, large?: boolean}} how pixels; milliseconds from one picture to the next
 * @returns {HTMLElement & {show: (live: boolean) => void}}
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

  const later = () => {
    clearTimeout(timer);
    // A camera that has nothing to show is asked more rarely.
    timer = setTimeout(load, wasThere ? Math.min(how.every * 2 ** failures, 15_000) : 50);
  };
  let wasThere = false;
  const load = () => {
    wasThere ||= element.isConnected;
    if ((wasThere && !element.isConnected) || !live || loading) return;
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
      failures = 0;
      if (shown) shown.replaceWith(next);
      else element.append(next);
      shown = next;
      element.dataset.pictures = String(Number(element.dataset.pictures ?? 0) + 1);
      later();
    };
    next.onerror = () => {
      loading = false;
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
  return Object.assign(element, { show });
}
