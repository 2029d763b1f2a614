// What happened lately: the audit log in plain words.

import { get } from "./api.js";
import { h } from "./dom.js";
import { lastStatus } from "./store.js";
import { texts } from "./texts.js";
import { since } from "./words.js";

/** @typedef {import("./types.js").AuditEntry} AuditEntry */

/** @type {import("./app.js").Screen} */
export async function helpScreen() {
  const list = h("ul", { class: "list" });
  const more = h("button", { type: "button", class: "wide", hidden: true }, texts.help.more);
  let cursor = "";
  const load = async () => {
    const page = await get(`/api/v1/audit?limit=50${cursor}`);
    const entries = /** @type {AuditEntry[]} */ (page.entries);
    list.append(...entries.map(line));
    if (!list.children.length) list.append(h("li", null, texts.help.none));
    cursor = page.next_cursor ? `&cursor=${encodeURIComponent(page.next_cursor)}` : "";
    more.hidden = !page.next_cursor;
  };
  more.addEventListener("click", () => void load());
  await load();
  return h("div", null, h("h1", null, texts.help.title), h("p", { class: "quiet" }, texts.help.intro), list, more, h("div", { class: "row" }, h("a", { class: "button", href: "#/site" }, texts.back)));
}

/** @param {AuditEntry} entry */
function line(entry) {
  const now = lastStatus()?.at ?? new Date().toISOString();
  return h(
    "li",
    null,
    h("p", null, h("strong", null, entry.what), " ", entry.result),
    h("p", { class: "quiet small" }, `${texts.help.by(entry.who, entry.from)}, ${texts.time.ago(since(entry.at, now))}`),
  );
}
