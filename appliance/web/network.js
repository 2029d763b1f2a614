// The machine's own network: what is, then what shall be. A change is only tried; the sheet below counts down.

import { get } from "./api.js";
import { change, say } from "./change.js";
import { field, fill, form, h } from "./dom.js";
import { texts } from "./texts.js";

/** @typedef {import("./types.js").Network} Network */
/** @typedef {import("./types.js").NetworkLink} NetworkLink */
/** @typedef {import("./types.js").LinkSetting} LinkSetting */

const words = texts.network;
/** Interfaces that programs make for themselves. */
const MADE = /^(veth|docker|br-|virbr|tun|tap|dummy|ifb|ip6?tnl|sit|gre|erspan)/;

/** @type {import("./app.js").Screen} */
export async function networkScreen(place) {
  const mayChange = place.session.role === "admin" || place.session.role === "installer";
  const facts = /** @type {Network} */ (await get("/api/v1/network"));
  const config = await get("/api/v1/config");
  const wanted = /** @type {{hostname?: string, links: Record<string, LinkSetting>, uplinks: string[]}} */ (config.network);
  const names = [...new Set([...Object.keys(facts.links).filter((name) => !MADE.test(name)), ...Object.keys(wanted.links)])].sort();
  const now = h("div", { class: "facts-of-links" });
  const showNow = (/** @type {Network} */ it) => fill(now, it.config.state === "failed" ? h("div", { class: "note bad" }, h("p", null, words.failed(it.config.cause ?? ""))) : null, h("ul", { class: "list" }, names.map((name) => line(name, it.links[name], it))));
  showNow(facts);
  const again = setInterval(() => void get("/api/v1/network").then(showNow, () => {}), 5000);
  place.onLeave(() => clearInterval(again));
  return h(
    "div",
    null,
    h("h1", null, words.title),
    now,
    mayChange ? [h("h2", null, words.change), h("p", null, words.tried), edit(names, facts, wanted)] : null,
  );
}

/**
 * One interface as it is, in words.
 *
 * @param {string} name
 * @param {NetworkLink | undefined} link
 * @param {Network} all
 */
function line(name, link, all) {
  const ways = all.routes.filter((route) => route.link === name);
  const state = !link ? words.absent : link.carrier ? words.on : words.off;
  const order = all.routes.findIndex((route) => route.link === name);
  const way = ways.length ? words.leads(order + 1, ways.map((route) => route.gateway ?? "").filter(Boolean).join(", ")) : words.leadsNowhere;
  return h(
    "li",
    { "data-link": name },
    h("p", null, h("strong", null, name), ` ${link?.wifi ? words.wifi : ""} ${state}`),
    h("p", { class: "small" }, link?.addresses.length ? link.addresses.join(", ") : words.noAddress),
    link?.carrier ? h("p", { class: "small" }, way) : null,
  );
}

/**
 * @param {string[]} names
 * @param {Network} facts
 * @param {{hostname?: string, links: Record<string, LinkSetting>, uplinks: string[]}} wanted
 */
function edit(names, facts, wanted) {
  const host = field(words.hostname, h("input", { value: wanted.hostname ?? "", placeholder: facts.hostname, maxlength: 63, autocapitalize: "none", spellcheck: "false" }), words.hostnameHint);
  const parts = names.map((name) => linkPart(name, facts.links[name], wanted.links[name], wanted.uplinks));
  return form({ button: words.button, busy: words.busy }, [host.element, ...parts.map((part) => part.element)], async () => {
    for (const part of parts) part.check();
    await change((config) => {
      const network = config.network;
      if (host.input.value.trim()) network.hostname = host.input.value.trim().toLowerCase();
      else delete network.hostname;
      /** @type {[number, string][]} */
      const order = [];
      for (const part of parts) {
        const setting = part.read(network.links[part.name]);
        if (setting) network.links[part.name] = setting;
        else delete network.links[part.name];
        if (setting && part.place() > 0) order.push([part.place(), part.name]);
      }
      network.uplinks = order.sort().map(([, name]) => name);
    });
    say("good", words.kept);
  });
}

/**
 * What one interface shall be.
 *
 * @param {string} name
 * @param {NetworkLink | undefined} link
 * @param {LinkSetting | undefined} setting
 * @param {string[]} uplinks
 */
function linkPart(name, link, setting, uplinks) {
  const option = (/** @type {string} */ value, /** @type {string} */ text, /** @type {string} */ chosen) => h("option", { value, selected: value === chosen }, text);
  const kindNow = !setting ? "image" : setting.dhcp ? "dhcp" : "fixed";
  const kind = field(words.kind(name), h("select", null, Object.entries(words.kinds).map(([value, text]) => option(value, text, kindNow))));
  const text = (/** @type {string} */ label, /** @type {string} */ value, /** @type {string} */ hint) => field(label, h("input", { value, autocapitalize: "none", spellcheck: "false" }), hint);
  const address = text(words.address, setting?.addresses[0] ?? link?.addresses.find((it) => it.includes(".")) ?? "", words.addressHint);
  const gateway = text(words.gateway, setting?.gateway ?? "", words.gatewayHint);
  const dns = text(words.dns, setting?.dns.join(" ") ?? "", words.dnsHint);
  const ssid = text(words.ssid, setting?.wifi?.ssid ?? "", words.ssidHint);
  const psk = field(words.psk, h("input", { type: "password", autocomplete: "off", maxlength: 64 }), setting?.wifi?.psk ? words.pskKept : words.pskHint);
  const wayNow = String(uplinks.indexOf(name) + 1);
  const way = field(words.way, h("select", null, words.ways.map((it, index) => option(String(index), it, setting ? wayNow : "1"))), words.wayHint);
  const fixed = h("div", null, address.element, gateway.element);
  const isWifi = Boolean(link?.wifi || setting?.wifi);
  const more = h("div", null, fixed, dns.element, isWifi ? [ssid.element, psk.element] : null, way.element);
  const show = () => {
    more.hidden = kind.input.value === "image";
    fixed.hidden = kind.input.value !== "fixed";
  };
  kind.input.addEventListener("change", show);
  show();
  const value = (/** @type {{input: {value: string}}} */ it) => it.input.value.trim();
  return {
    name,
    element: h("fieldset", null, h("legend", null, name), kind.element, more),
    place: () => Number(way.input.value),
    /** Throws, beside the field, what can be told before the gateway is asked. */
    check() {
      if (kind.input.value !== "fixed" || /^[0-9a-fA-F.:]+\/\d{1,3}$/.test(value(address))) return;
      address.wrong(words.addressWrong);
      throw new Error("");
    },
    /** @param {LinkSetting | undefined} before @returns {LinkSetting | undefined} */
    read(before) {
      if (kind.input.value === "image") return undefined;
      const isFixed = kind.input.value === "fixed";
      /** @type {LinkSetting} */
      const next = { dhcp: !isFixed, addresses: isFixed ? [value(address), ...(before?.addresses.slice(1) ?? [])] : [], dns: value(dns).split(/[\s,]+/).filter(Boolean) };
      if (isFixed && value(gateway)) next.gateway = value(gateway);
      if (isWifi && value(ssid)) {
        const same = before?.wifi?.ssid === value(ssid);
        const secret = psk.input.value || (same ? before?.wifi?.psk : undefined);
        next.wifi = { ssid: value(ssid), hidden: same ? (before?.wifi?.hidden ?? false) : false, ...(secret ? { psk: secret } : {}) };
      }
      return next;
    },
  };
}
