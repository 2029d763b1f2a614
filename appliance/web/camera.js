// One camera: its picture large, what is true of it, what happens to it, where it goes, and its last day.

import { get, post } from "./api.js";
import { barKey, dayBar, lastDay } from "./bar.js";
import { rtmpAddress, withLogin } from "./add.js";
import { change, say } from "./change.js";
import { chartsOf } from "./chart.js";
import { field, fill, form, h, problem, region } from "./dom.js";
import { livePicture } from "./picture.js";
import { lastStatus } from "./store.js";
import { texts } from "./texts.js";
import { pushList } from "./upstreams.js";
import { cameraHealth, note, rate, since, statusOf } from "./words.js";

/** @typedef {import("./types.js").Mountpoint} Mountpoint */

/** @type {import("./app.js").Screen} */
export async function cameraScreen(place) {
  const name = place.parts[0] ?? "";
  const role = place.session.role;
  const mayChange = role === "installer" || role === "admin";
  const seesWhere = role !== "viewer";
  const picture = livePicture(name, { width: 1280, every: 1000, large: true });
  const head = h("span", null);
  const told = h("div", null);
  const facts = region(h("dl", { class: "facts" }), (/** @type {[string, string][]} */ all) =>
    all.map(([term, value]) => h("div", { class: value.length > 18 ? "long" : false }, h("dt", null, term), h("dd", null, value))),
  );
  const goes = pushList(name, mayChange);
  const plan = h("div", null);
  const day = h("div", null);
  const charts = h("div", null);
  const gone = h("div", { class: "note bad", hidden: true }, h("p", null, texts.camera.gone));
  let wasThere = false;
  place.onStatus((status) => {
    const mountpoint = status.mountpoints[name];
    gone.hidden = Boolean(mountpoint) || wasThere;
    if (!mountpoint) return picture.show(false);
    wasThere = true;
    const health = cameraHealth(mountpoint, status.at);
    picture.show(Boolean(mountpoint.stream?.tracks.some((track) => track.kind === "video")));
    fill(head, statusOf(health));
    const step = mountpoint.source.ladder?.step;
    fill(told, note(health, status.at), step ? h("p", { class: "quiet" }, `${texts.camera.ladder} ${step}`) : null);
    facts.show(factsOf(mountpoint, status.at));
    goes.show({ pushes: mountpoint.pushes, now: status.at });
    fill(charts, chartsOf(name));
  });
  if (seesWhere) void drawPlan(plan, name);
  if (seesWhere) void drawDay(day, name);
  const asked = setInterval(() => {
    if (seesWhere && document.visibilityState === "visible") void drawDay(day, name);
  }, 60_000);
  place.onLeave(() => clearInterval(asked));
  const where = [
    h("h2", null, texts.camera.goesTo),
    goes,
    mayChange ? h("a", { class: "button wide", href: `#/cameras/${encodeURIComponent(name)}/upstream` }, texts.camera.addUpstream) : null,
    h("h2", null, texts.camera.plan),
    plan,
    h("h2", null, texts.camera.day),
    day,
  ];
  return h(
    "div",
    null,
    h("div", { class: "row spread" }, h("h1", null, name), head),
    gone,
    told,
    h("div", { class: "columns" }, h("div", null, picture, h("p", { class: "quiet small" }, texts.camera.live), facts, h("h2", null, texts.camera.charts), charts), h("div", null, seesWhere ? where : null, mayChange ? await more(name, picture) : null)),
  );
}

/**
 * @param {Mountpoint} mountpoint
 * @param {string} now
 * @returns {[string, string][]}
 */
function factsOf(mountpoint, now) {
  const words = texts.camera.facts;
  const { stream, source } = mountpoint;
  /** @type {[string, string][]} */
  const all = [];
  if (stream) {
    const video = stream.tracks.find((track) => track.kind === "video");
    const audio = stream.tracks.find((track) => track.kind === "audio");
    if (video) {
      all.push([words.size, video.width ? `${video.width} × ${video.height}` : texts.camera.unknown]);
      all.push([words.rate, video.frame_rate ? texts.camera.perSecond(video.frame_rate.toFixed(video.frame_rate < 10 ? 1 : 0)) : texts.camera.unknown]);
      all.push([words.codec, codecName(video.codec)]);
    }
    all.push([words.bitrate, rate(stream.bitrate)]);
    all.push([words.sound, audio ? codecName(audio.codec) : texts.camera.silent]);
    all.push([words.since, since(stream.since, now)]);
  }
  all.push([words.players, String(mountpoint.players)]);
  if (source.from) all.push([words.from, source.from]);
  return all;
}

/** @type {Record<string, string>} */
const CODECS = { h264: "H.264", hevc: "H.265", av1: "AV1", aac: "AAC", opus: "Opus", mjpeg: "Motion JPEG", pcma: "G.711 A", pcmu: "G.711 µ" };

/** @param {string} codec */
const codecName = (codec) => CODECS[codec.toLowerCase()] ?? codec;

/**
 * @param {HTMLElement} element
 * @param {string} name
 */
async function drawPlan(element, name) {
  try {
    const answer = await get("/api/v1/plan");
    const mountpoint = answer.mountpoints.find((/** @type {any} */ it) => it.name === name);
    if (!mountpoint) return fill(element, h("p", { class: "quiet" }, texts.camera.unknown));
    const steps = [mountpoint.source.video, ...(mountpoint.renditions ?? []).map((/** @type {any} */ it) => it.video)];
    const works = steps.filter((step) => step.action === "transcode" || step.action === "unable");
    if (!works.length) return fill(element, h("p", null, texts.camera.planPass));
    fill(
      element,
      works.map((step) =>
        h(
          "div",
          { class: step.action === "unable" ? "note bad" : "note wait" },
          h("p", null, step.action === "unable" ? texts.camera.planUnable : texts.camera.planWork(codecName(step.from), codecName(step.to)), " ", step.reason),
          step.remedy ? h("p", null, texts.camera.planRemedy(step.remedy)) : null,
        ),
      ),
    );
  } catch (error) {
    fill(element, problem(error));
  }
}

/**
 * @param {HTMLElement} element
 * @param {string} name
 */
async function drawDay(element, name) {
  const status = lastStatus();
  if (!status) return;
  try {
    const day = await lastDay(name, status.at);
    if (!day.size) return fill(element, h("p", { class: "quiet" }, texts.camera.dayNothing));
    const urls = status.mountpoints[name]?.pushes ?? {};
    const bars = [...day].map(([upstream, entries]) => {
      const label = urls[upstream]?.url ?? upstream;
      return h("div", null, h("p", { class: "small" }, label), dayBar(label, entries, status.at));
    });
    fill(element, bars, barKey());
  } catch (error) {
    fill(element, problem(error));
  }
}

/**
 * What is seldom needed: another login, and taking it away.
 *
 * @param {string} name
 * @param {import("./picture.js").LivePicture} picture
 */
async function more(name, picture) {
  const config = await get("/api/v1/config");
  const source = config.mountpoints[name]?.source;
  if (!source) return null;
  const isRtsp = source.kind === "rtsp";
  const user = field(texts.add.user, h("input", { autocomplete: "off", autocapitalize: "none", spellcheck: "false", maxlength: 128, value: "admin" }));
  const password = field(texts.add.password, h("input", { type: "password", autocomplete: "off", maxlength: 128 }));
  const relogin = form({ button: texts.camera.newPasswordButton, busy: texts.add.saving }, [user.element, password.element], async () => {
    await change((now) => {
      const rtsp = now.mountpoints[name].source;
      rtsp.url = withLogin(rtsp.url, user.input.value.trim(), password.input.value);
      if (rtsp.sub_url) rtsp.sub_url = withLogin(rtsp.sub_url, user.input.value.trim(), password.input.value);
    });
    password.input.value = "";
  });
  const said = h("div", { role: "alert" });
  const again = h("button", { type: "button", class: "wide", onclick: async () => {
    fill(said);
    again.disabled = true;
    try {
      await post(`/api/v1/mountpoints/${encodeURIComponent(name)}/restart`);
      say("good", texts.camera.restarted(name));
    } catch (error) {
      fill(said, problem(error));
    }
    again.disabled = false;
  } }, texts.camera.restart);
  const asks = h("div", { hidden: true, class: "note bad" }, h("p", null, texts.camera.removeAsk(name)));
  const removal = form({ button: texts.camera.removeYes(name), busy: texts.camera.removing }, [], async () => {
    // Who is gone is asked for no picture.
    await picture.rest();
    try {
      await change((now) => {
        delete now.mountpoints[name];
      });
    } catch (error) {
      picture.goOn();
      throw error;
    }
    location.hash = "#/cameras";
    say("good", texts.camera.removed(name));
  });
  asks.append(removal);
  const ask = h("button", { type: "button", class: "danger wide", onclick: () => {
    asks.hidden = !asks.hidden;
    asks.querySelector("button")?.focus();
  } }, texts.camera.remove);
  return h(
    "details",
    null,
    h("summary", null, texts.camera.more),
    h("p", { class: "label" }, texts.camera.play),
    h("p", null, rtmpAddress(name)),
    isRtsp ? [h("h3", null, texts.camera.newPassword), relogin] : null,
    h("div", { class: "row" }, again),
    said,
    ask,
    asks,
  );
}
