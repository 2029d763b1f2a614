// The acceptance certificate: one button surveys the site; what comes of it is signed, can be kept and printed.

import { get, post, sentence } from "./api.js";
import { field, fill, form, h, problem, region } from "./dom.js";
import { texts } from "./texts.js";
import { shape, span } from "./words.js";

/** @typedef {import("./types.js").Survey} Survey */
/** @typedef {import("./types.js").Check} Check */
/** @typedef {import("./types.js").Level} Level */

const words = texts.certificate;
const LOOK_EVERY = 1000;
/** @type {Record<Check["verdict"], Level>} */
const LEVEL = { passed: "good", failed: "bad", not_measured: "off" };

/** @type {import("./app.js").Screen} */
export async function certificatesScreen(place) {
  const { surveys } = await get("/api/v1/acceptance");
  const running = /** @type {Survey | undefined} */ (surveys.find((/** @type {Survey} */ it) => it.phase !== "done"));
  if (running) {
    location.replace(`#/site/certificate/${running.id}`);
    return h("div", null, h("h1", null, words.title));
  }
  const soak = field(words.soak, h("select", null, ...words.soaks.map(([value, text]) => h("option", { value, selected: value === "300s" }, text))), words.soakHint);
  const spare = field(words.spare, h("input", { type: "url", autocomplete: "off", autocapitalize: "none", spellcheck: "false", maxlength: 2048 }), words.spareHint);
  const start = form({ button: words.button, busy: words.starting }, [soak.element, h("details", null, h("summary", null, words.more), spare.element)], async () => {
    const url = spare.input.value.trim();
    if (url && !/^rtmps?:\/\//.test(url)) {
      spare.wrong(words.spareBad);
      throw new Error("");
    }
    const survey = await post("/api/v1/acceptance", { soak: soak.input.value, ...(url ? { bandwidth_url: url } : {}) });
    location.hash = `#/site/certificate/${survey.id}`;
  });
  const mayStart = place.session.role === "admin" || place.session.role === "installer";
  return h(
    "div",
    { class: "narrow" },
    h("h1", null, words.title),
    h("p", null, words.intro),
    mayStart ? start : null,
    surveys.length ? [h("h2", null, words.earlier), h("ul", { class: "list" }, ...surveys.map(earlier))] : null,
    h("div", { class: "row" }, h("a", { class: "button", href: "#/site" }, texts.back)),
  );
}

/** @param {Survey} survey */
function earlier(survey) {
  const verdict = survey.certificate?.verdict ?? "not_measured";
  return h("li", null, h("a", { href: `#/site/certificate/${survey.id}` }, new Date(survey.begun).toLocaleString()), " ", mark(verdict, verdict === "passed" ? words.passed : words.failed));
}

/** @type {import("./app.js").Screen} */
export async function certificateScreen(place) {
  const id = place.parts[0] ?? "";
  let left = false;
  place.onLeave(() => {
    left = true;
  });
  const shown = region(h("div", null), (/** @type {{survey: Survey, now: number}} */ { survey, now }) => (survey.certificate ? drawCertificate(survey) : drawProgress(survey, now)));
  const look = async () => {
    let answered = true;
    while (!left) {
      try {
        const survey = /** @type {Survey} */ (await get(`/api/v1/acceptance/${encodeURIComponent(id)}`));
        shown.show({ survey, now: survey.certificate ? 0 : Date.now() });
        answered = true;
        if (survey.certificate) return;
      } catch (error) {
        // A phone that was asleep comes back; only what stays wrong is told.
        if (!answered) fill(shown, problem(error));
        answered = false;
      }
      await new Promise((resolve) => setTimeout(resolve, LOOK_EVERY));
    }
  };
  void look();
  return h("div", { class: "paper" }, h("h1", null, words.title), shown, h("div", { class: "row noprint" }, h("a", { class: "button", href: "#/site/certificate" }, texts.back)));
}

/**
 * @param {Survey} survey
 * @param {number} now
 */
function drawProgress(survey, now) {
  const [begin, end] = [Date.parse(survey.begun), Date.parse(survey.ends)];
  const part = Math.min(1, Math.max(0, (now - begin) / Math.max(1, end - begin)));
  return [
    h("p", { role: "status" }, survey.phase === "line" ? words.line : words.running(span(Math.max(0, end - now) / 1000))),
    h("progress", { max: 100, value: Math.round(part * 100), "aria-label": words.title }),
    h("p", { class: "quiet" }, words.sleep),
  ];
}

/** @param {Survey} survey */
function drawCertificate(survey) {
  const it = /** @type {import("./types.js").Certificate} */ (survey.certificate);
  const isGood = it.verdict === "passed";
  const facts = [
    [words.gateway, it.gateway],
    [words.when, `${new Date(it.begun).toLocaleString()} – ${new Date(it.ended).toLocaleTimeString()}`],
    [words.soaked, span(it.soak_seconds)],
    [words.by, it.by],
    [words.version, it.version],
    [words.settings, String(it.config_revision)],
  ];
  const failed = [...it.cameras, ...it.upstreams].flatMap((part) => part.checks).concat(it.uplink).filter((check) => check.verdict === "failed").length;
  return [
    h("div", { class: `note ${isGood ? "good" : "bad"}` }, h("p", { class: "verdict" }, mark(it.verdict, isGood ? words.passed : words.failed)), h("p", null, isGood ? words.passedText : words.failedText(failed))),
    h("dl", { class: "facts" }, facts.map(([term, value]) => h("div", { class: (value?.length ?? 0) > 18 ? "long" : false }, h("dt", null, term), h("dd", null, value)))),
    it.cameras.map((camera) => part(camera.mountpoint, camera.described ?? camera.kind, camera.checks)),
    it.upstreams.map((upstream) => part(`${upstream.mountpoint} → ${upstream.upstream}`, upstream.url, upstream.checks)),
    part(words.uplink, "", it.uplink),
    h("p", { class: "quiet small" }, words.signed),
    h("div", { class: "row noprint" }, h("button", { type: "button", class: "main", onclick: () => window.print() }, words.print), h("a", { class: "button", href: `/api/v1/acceptance/${encodeURIComponent(survey.id)}/certificate.json`, download: `acceptance-${survey.id}.json` }, words.save)),
  ].flat();
}

/**
 * @param {string} name
 * @param {string} what
 * @param {Check[]} checks
 */
function part(name, what, checks) {
  return h(
    "section",
    null,
    h("h2", null, name),
    what ? h("p", { class: "quiet small" }, what) : null,
    h("ul", { class: "list checks" }, checks.map((check) => h("li", null, mark(check.verdict, `${words.checks[check.check] ?? check.check}: ${words.verdicts[check.verdict]}`), h("p", null, sentence(check.found)), check.remedy ? h("p", null, h("strong", null, words.todo), " ", sentence(check.remedy)) : null))),
  );
}

/**
 * @param {Check["verdict"]} verdict
 * @param {string} text
 */
function mark(verdict, text) {
  return h("span", { class: `status ${LEVEL[verdict]}` }, shape(LEVEL[verdict]), h("span", null, text));
}
