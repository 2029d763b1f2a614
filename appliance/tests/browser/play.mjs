// A page with one player in a real browser: `node play.mjs hls|levels|near|dash|sizes URL`; `levels` is hls.js that goes on with
// another rendition every few seconds, `sizes` dash.js that does; `near` is hls.js as pages use it that want to be close to what is
// live: it plays a tenth faster while it is farther behind than the list says. Says twice a second, as a line of JSON, how far
// it is. Runs until it is told to end.
import { createServer } from "node:http";
import { readFileSync } from "node:fs";
import { chromium } from "playwright-core";

const [, , player, url] = process.argv;
const kind = ["dash", "sizes"].includes(player) ? "dash" : "hls";
const live = player === "near" ? { maxLiveSyncPlaybackRate: 1.1 } : {};
const files = {
  "/hls.js": new URL("node_modules/hls.js/dist/hls.min.js", import.meta.url),
  "/dash.js": new URL("node_modules/dashjs/dist/modern/umd/dash.all.min.js", import.meta.url),
};
const page = `<!doctype html><video id="video" muted autoplay></video><script src="/${kind}.js"></script>`;
const server = createServer((request, response) => {
  const file = files[request.url];
  response.setHeader("content-type", file ? "text/javascript" : "text/html");
  response.end(file ? readFileSync(file) : page);
});
await new Promise((listening) => server.listen(0, "127.0.0.1", listening));

const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
  args: ["--no-sandbox", "--autoplay-policy=no-user-gesture-required", "--disable-dev-shm-usage"],
});
const view = await browser.newPage();
view.on("pageerror", (error) => console.error(`page: ${error}`));
await view.goto(`http://127.0.0.1:${server.address().port}/`);
await view.evaluate(({ kind, url, live, switches }) => {
  const video = document.getElementById("video");
  const said = { stalls: 0, errors: [], has_played: false, latency: null, heights: [] };
  window.said = said;
  video.addEventListener("resize", () => said.heights.push(video.videoHeight));
  video.addEventListener("playing", () => (said.has_played = true));
  video.addEventListener("waiting", () => (said.stalls += said.has_played ? 1 : 0));
  if (kind === "hls") {
    const player = new Hls({ lowLatencyMode: true, ...live });
    player.on(Hls.Events.ERROR, (_, error) => said.errors.push({ what: error.details, fatal: error.fatal }));
    player.loadSource(url);
    player.attachMedia(video);
    if (switches) setInterval(() => (player.nextLevel = (player.currentLevel + 1) % player.levels.length), 4000);
    // By the capture time of the picture on show, as the playlist tells it.
    window.latency = () => player.playingDate && (Date.now() - player.playingDate.getTime()) / 1000;
  } else {
    const player = dashjs.MediaPlayer().create();
    player.on(dashjs.MediaPlayer.events.ERROR, ({ error }) => said.errors.push({ what: error.message, fatal: true }));
    player.initialize(video, url, true);
    window.latency = () => player.getCurrentLiveLatency();
    if (switches) {
      player.updateSettings({ streaming: { abr: { autoSwitchBitrate: { video: false } } } });
      let at = 0;
      setInterval(() => {
        const count = player.getRepresentationsByType("video").length;
        if (count > 0) player.setRepresentationForTypeByIndex("video", (at = (at + 1) % count));
      }, 4000);
    }
  }
}, { kind, url, live, switches: ["levels", "sizes"].includes(player) });

let ends = false;
for (const signal of ["SIGINT", "SIGTERM"]) process.on(signal, () => (ends = true));
while (!ends) {
  const state = await view.evaluate(() => {
    const video = document.getElementById("video");
    const pictures = video.getVideoPlaybackQuality().totalVideoFrames;
    return { ...window.said, seconds: video.currentTime, pictures, latency: window.latency() };
  });
  console.log(JSON.stringify(state));
  await new Promise((later) => setTimeout(later, 500));
}
await browser.close();
server.close();
