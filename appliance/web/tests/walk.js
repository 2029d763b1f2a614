// Walks through the page as an installer does, in a real Chromium: claim, discover, add, look, send on, status.
//
// usage: node walk.js JSON, with origin, code, cameras, user, password, upstream, screen (phone or desk) and pictures, a
// folder for screenshots. Ends with an error at the first thing that is not as it should be.

import assert from "node:assert/strict";
import { readFile, writeFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { join } from "node:path";
import { gzipSync } from "node:zlib";
import { chromium } from "playwright-core";

const wish = JSON.parse(process.argv[2] ?? "{}");
const ADMIN = { name: "ann", password: "correct horse 7" };
/** What the whole page may take on the way to a phone. */
const MOST_BYTES = 150 * 1024;
const isPhone = wish.screen === "phone";

const axe = await readFile(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
  // A sandbox in a container, where tests may run as root, cannot be had; what is opened is our own.
  args: ["--no-sandbox", "--disable-dev-shm-usage"],
});
const context = await browser.newContext({
  viewport: isPhone ? { width: 390, height: 780 } : { width: 1366, height: 850 },
  deviceScaleFactor: 1,
  hasTouch: isPhone,
  isMobile: isPhone,
  reducedMotion: "reduce",
});
context.setDefaultTimeout(30_000);
const page = await context.newPage();

/** @type {string[]} */
const faults = [];
/** The page's own files that were asked for. @type {Set<string>} */
const files = new Set();
page.on("console", (message) => {
  // A picture that is not there yet is a refusal like any other; the browser tells of each.
  // So is a found camera that shows none without a login.
  const { url } = message.location();
  const isPicture = (url.includes("/snapshot.jpg") && message.text().includes("503")) || (/\/discovery\/[^/]+\/snapshot/.test(url) && /4(09|22)|50[23]/.test(message.text()));
  if ((message.type() === "error" || message.type() === "warning") && !isPicture && !expected(message.text())) faults.push(`console: ${message.text()} ${message.location().url}`);
});
page.on("pageerror", (error) => faults.push(`script: ${error.stack ?? error}`));
context.on("request", (request) => {
  const { origin, pathname } = new URL(request.url());
  if (origin !== wish.origin) faults.push(`left the gateway: ${request.url()}`);
  if (pathname === "/" || pathname.startsWith("/web/")) files.add(pathname);
});

// For work on the page without building the program each time.
if (process.env.FIELDGATE_PAGE_FROM_DISK) {
  await context.route(/\/web\/|\/$/, async (route) => {
    const path = new URL(route.request().url()).pathname;
    const file = new URL(path === "/" ? "../index.html" : `..${path.slice(4)}`, import.meta.url);
    const answer = await route.fetch();
    await route.fulfill({ response: answer, body: await readFile(file) });
  });
}

/** Refusals that a step wants to see. @type {RegExp[]} */
const wanted = [];
/** @param {string} text */
const expected = (text) => wanted.some((pattern) => pattern.test(text));

let number = 0;
/**
 * A screen as it should be: nothing that keeps people out, nothing wider than the glass, and a picture of it.
 *
 * @param {string} name
 */
async function screen(name) {
  number += 1;
  await page.screenshot({ path: join(wish.pictures, `${String(number).padStart(2, "0")}-${name}.png`), fullPage: true });
  const wide = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
  assert.ok(wide <= 0, `${name} is ${wide} pixels wider than the screen`);
  const said = await page.evaluate(`${axe}; axe.run(document, { resultTypes: ["violations"] })`);
  const serious = /** @type {any} */ (said).violations.filter((/** @type {any} */ it) => ["serious", "critical"].includes(it.impact));
  const words = serious.map((/** @type {any} */ it) => `${it.id}: ${it.help}: ${it.nodes.map((/** @type {any} */ node) => node.html).join(" ")}`);
  assert.deepEqual(words, [], `axe-core on ${name}`);
  if (isPhone) await touchable(name);
}

/**
 * What is pressed is large enough for a glove.
 *
 * @param {string} name
 */
async function touchable(name) {
  const small = await page.$$eval("button, .button, input:not([type=checkbox]), select, summary, nav a", (all) =>
    all
      .filter((it) => it.checkVisibility() && it.getBoundingClientRect().height < 47)
      .map((it) => it.outerHTML.slice(0, 120)),
  );
  assert.deepEqual(small, [], `too small to touch on ${name}`);
}

const button = (/** @type {string | RegExp} */ name) => page.getByRole("button", { name, exact: true });
const link = (/** @type {string | RegExp} */ name) => page.getByRole("link", { name, exact: true });
const label = (/** @type {string | RegExp} */ name) => page.getByLabel(name, { exact: true });
const title = (/** @type {string} */ name) => page.getByRole("heading", { name, level: 1, exact: true }).waitFor();

async function claim() {
  await page.goto(wish.origin);
  await title("Make this gateway yours");
  await label("Choose a password").fill("short");
  await page.getByText("5 characters more.").waitFor();
  await screen("claim");
  // A wrong code is told beside the code, not as an error of the program.
  wanted.push(/401/);
  await label("Code").fill("AAAAA-AAAAA");
  await label("Your name").fill(ADMIN.name);
  await label("Choose a password").fill(ADMIN.password);
  await button("Claim").click();
  await page.getByText(/not the claim code/).waitFor();
  wanted.pop();
  // The label's QR code: the code is typed in, and stands in no address any more.
  await page.goto(`${wish.origin}/#claim=${wish.code}`);
  await page.waitForFunction((code) => document.querySelector("input")?.value === code, wish.code);
  assert.ok(!page.url().includes(wish.code), page.url());
  await label("Your name").fill(ADMIN.name);
  await label("Choose a password").fill(ADMIN.password);
  await button("Claim").click();
  await title("Cameras");
}

/** Signing out and in again; a wrong password is told. */
async function signIn() {
  await link("People").click();
  await title("People");
  await screen("people");
  await button("Sign out").click();
  await title("Sign in");
  wanted.push(/401/);
  await label("Name").fill(ADMIN.name);
  await label("Password").fill("not this one");
  await button("Sign in").click();
  await page.locator(".wrong:visible").waitFor();
  await screen("sign-in");
  wanted.pop();
  await label("Password").fill(ADMIN.password);
  await button("Sign in").click();
  await title("Cameras");
}

/** The one who has the password gets the picture before the camera is added. */
async function withLogin() {
  const { session } = await (await context.request.get(`${wish.origin}/api/v1/start`)).json();
  const { cameras } = await (await context.request.get(`${wish.origin}/api/v1/discovery?limit=300`)).json();
  const camera = cameras.find((/** @type {{address: string}} */ it) => it.address === wish.cameras[0]);
  const path = `${wish.origin}/api/v1/discovery/${camera.id}/snapshot`;
  const headers = { "x-csrf-token": session.csrf, origin: wish.origin };
  const asked = await context.request.post(path, { data: { user: wish.user, password: wish.password, address: camera.address }, headers });
  assert.equal(asked.status(), 202, await asked.text());
  let answer = await context.request.get(path);
  for (let tries = 0; answer.status() === 202 && tries < 60; tries += 1) {
    await page.waitForTimeout(500);
    answer = await context.request.get(path);
  }
  assert.equal(answer.status(), 200, await answer.text());
  assert.equal(answer.headers()["content-type"], "image/jpeg");
}

/**
 * @param {string} found what the camera calls itself
 * @param {string} name what it gets
 */
async function add(found, name) {
  await link(`Add ${found}`).first().click();
  await title(`Add ${found}`);
  assert.equal(await label("Name").inputValue(), name);
  await label("User name of the camera").fill(wish.user);
  await label("Password of the camera").fill(wish.password);
  if (name === "gate-cam") await screen("add-camera");
  await button("Add camera").click();
  await title(name);
  await page.locator(".status.good", { hasText: "Live" }).waitFor();
  await page.locator(".picture.large[data-pictures]").waitFor();
}

async function discoverAndAdd() {
  for (const address of wish.cameras) await page.getByText(address).first().waitFor();
  // One shows its picture to anybody; the others say what they want first.
  const open = page.locator("li", { hasText: "Open cam" });
  await open.locator(".picture[data-found]").waitFor();
  assert.equal(await open.getByAltText("Picture of Open cam, which is not added yet").evaluate((image) => /** @type {HTMLImageElement} */ (image).naturalWidth), 320);
  await page.locator("li", { hasText: "Gate cam" }).getByText("The camera shows its picture only after a login.").waitFor();
  await page.locator("li", { hasText: "Yard cam" }).getByText("The camera shows its picture only after a login.").waitFor();
  await screen("found");
  await withLogin();
  await add("Gate cam", "gate-cam");
  // The picture renews itself, and it is one.
  const picture = page.locator(".picture.large");
  const first = Number(await picture.getAttribute("data-pictures"));
  await page.waitForFunction((count) => Number(document.querySelector(".picture.large")?.getAttribute("data-pictures")) > count + 1, first);
  assert.ok((await picture.locator("img").evaluate((image) => /** @type {HTMLImageElement} */ (image).naturalWidth)) >= 300);
  await page.getByText("H.264").first().waitFor();
  await page.getByText("Nothing is encoded.").waitFor();
  await screen("camera");
  await link("Cameras").click();
  await title("Cameras");
  await add("Yard cam", "yard-cam");
  await link("Cameras").click();
  await title("Cameras");
  await page.waitForFunction(() => document.querySelectorAll(".card .picture[data-pictures]").length === 2);
  await page.getByText("2 cameras are well").waitFor();
  assert.equal(await link(/^Add (Gate|Yard) cam$/).count(), 0, "what was added is not found any more");
  await screen("cameras");
}

async function sendOn() {
  await link("Upstreams").click();
  await title("Upstreams");
  await link("Add an upstream").click();
  await title("Add an upstream");
  await page.locator("select").selectOption("gate-cam");
  await label("Address").fill("http://nowhere");
  await button("Add upstream").click();
  await page.getByText("An address begins with rtmp://").waitFor();
  await label("Address").fill(wish.upstream);
  await test();
  await button("Add upstream").click();
  await title("gate-cam");
  await page.getByText("Delivering").waitFor();
  await screen("camera-sent");
  await link("Upstreams").click();
  await title("Upstreams");
  await page.getByText("Delivering").waitFor();
  await screen("upstreams");
  // What is delivered right now is not disturbed by a test.
  await link(`Test ${wish.upstream}`).click();
  await title("Test of an upstream");
  await button("Start the test").click();
  await page.getByText("Publishing accepted: passed").waitFor();
  await page.getByText("Bandwidth: left out").waitFor();
  await page.getByText("This upstream works.").waitFor();
}

/** The address is tried before it is taken: each step is told, and a wrong one where it fails. */
async function test() {
  await label("Address").fill(wish.upstream.replace(/:\d+\//, ":1/"));
  await button("Test this address").click();
  await page.getByText("Connection (TCP): failed").waitFor();
  await page.getByText(/is the server running on this port/).waitFor();
  await page.getByText("This upstream does not work yet.").waitFor();
  await label("Address").fill(wish.upstream);
  await button("Test this address").click();
  for (const step of ["Address", "Connection (TCP)", "Handshake", "Publishing accepted", "Bandwidth"]) {
    await page.getByText(`${step}: passed`).waitFor();
  }
  await page.getByText("This upstream works.").waitFor();
  await page.getByText(/^The line takes about \d/).waitFor();
  await page.getByText(/^Enough: the cameras send/).waitFor();
  await screen("upstream-test");
}

async function status() {
  await link("Site").click();
  await title("Site");
  await page.getByText("told to nobody").waitFor();
  // A gateway of this test listens on loopback alone; one with TLS tells its name.
  const facts = "**/api/v1/network";
  await context.route(facts, async (route) => {
    const answer = await route.fetch();
    await route.fulfill({ response: answer, json: { ...(await answer.json()), announced: ["https://fieldgate-7f3a.local:8443/"] } });
  });
  await page.reload();
  await page.getByText("https://fieldgate-7f3a.local:8443/").waitFor();
  await screen("site");
  await context.unroute(facts);
  await link("Who did what").click();
  await title("Who did what");
  await page.getByText("claim").first().waitFor();
  await screen("history");
  await happened();
  await network();
  await certificate();
  await updates();
  await signedChange();
  // A link opens the same thing again, and the session lasts over a reload.
  await page.goto(`${wish.origin}/#/cameras/yard-cam`);
  await page.reload();
  await title("yard-cam");
  await page.locator(".picture.large[data-pictures]").waitFor();
}

/** A new network is only tried: the page counts down, confirms by itself, or tells that it went back; others may keep it. */
async function network() {
  await link("Site").click();
  await title("Site");
  await link("Network").click();
  await title("Network");
  // What is said below is the gateway's: a router without a way further.
  wanted.push(/422/);
  const first = page.locator("fieldset", { hasText: "port1" });
  await first.locator("select").first().selectOption("fixed");
  await first.getByLabel("Fixed address").fill("192.168.1.5");
  await button("Try these settings").click();
  await page.getByText("An address looks like 192.168.1.5/24.").waitFor();
  await first.getByLabel("Fixed address").fill("192.168.1.5/24");
  await first.getByLabel("Router").fill("192.168.1.1");
  await first.getByLabel("Way to the internet").selectOption("0");
  await button("Try these settings").click();
  await page.getByText(/only an uplink has one/).waitFor();
  await first.getByLabel("Way to the internet").selectOption("1");
  await screen("network");

  wanted.pop();
  // The gateway cannot be reached for a while: the page counts, and goes on by itself.
  // Refused, too: there is nothing to confirm any more once it went back.
  wanted.push(/ERR_FAILED|409/);
  const confirms = "**/api/v1/config/confirm";
  await context.route(confirms, (route) => route.abort());
  await button("Try these settings").click();
  const left = async () => Number(/in (\d+) s/.exec((await page.locator("#countdown").textContent()) ?? "")?.[1]);
  await page.locator("#countdown").waitFor();
  const before = await left();
  await page.waitForFunction((count) => Number(/in (\d+) s/.exec(document.querySelector("#countdown")?.textContent ?? "")?.[1]) < count, before);
  await screen("countdown");
  await context.unroute(confirms);
  await page.getByText("The network is as you set it.").waitFor();
  await button("Close").click();

  // Nobody gets through: all is as before, and it is said.
  await context.route(confirms, (route) => route.abort());
  await first.getByLabel("Fixed address").fill("192.168.1.6/24");
  await button("Try these settings").click();
  await page.locator("#countdown").waitFor();
  await page.waitForFunction(() => document.querySelector("#countdown")?.textContent?.includes("in 0 s"));
  // The gateway's own time is over by then, too; only now it can be reached again.
  await page.waitForTimeout(3000);
  await context.unroute(confirms);
  await page.getByText(/The change was undone\. All is as it was before\./).first().waitFor({ timeout: 60_000 });
  await screen("undone");

  // At its new address the gateway is another place for the browser: who opens it there may keep what is tried.
  await context.route(confirms, (route) => route.abort());
  await first.getByLabel("Fixed address").fill("192.168.1.7/24");
  await button("Try these settings").click();
  await page.locator("#countdown").waitFor();
  await context.unroute(confirms);
  const tab = await context.newPage();
  await tab.addInitScript(() => sessionStorage.clear());
  await page.goto("about:blank");
  await tab.goto(`${wish.origin}/#/cameras`);
  await tab.getByText(/A change by .* is being tried/).waitFor();
  await tab.getByRole("button", { name: "Keep it" }).click();
  await tab.getByText("The change works and is kept.").waitFor();
  await tab.close();
  await page.goto(`${wish.origin}/#/site/network`);
  await title("Network");
  // It goes on with its own change, and finds that it was kept meanwhile.
  await page.getByText("The change works and is kept.").waitFor();
  wanted.pop();
  assert.equal(await page.locator("fieldset", { hasText: "port1" }).getByLabel("Fixed address").inputValue(), "192.168.1.7/24");
}

/** A fleet manager's change comes by two QR codes, of which each opens the page anew; then the same as text. */
async function signedChange() {
  const { session } = await (await context.request.get(`${wish.origin}/api/v1/start`)).json();
  const headers = { "x-csrf-token": session.csrf, "if-match": "*", origin: wish.origin };
  const keys = await context.request.put(`${wish.origin}/api/v1/fleet/keys`, { data: { "fleet-1": wish.fleetKey }, headers });
  assert.ok(keys.ok(), await keys.text());
  assert.equal(wish.codes.length, 2);
  await page.goto(wish.codes[1]);
  await page.getByText("1 of 2 codes are scanned. Still missing: 1.").waitFor();
  await screen("bundle-half");
  const tab = await context.newPage();
  await tab.addInitScript(() => sessionStorage.clear());
  await tab.goto(wish.codes[0]);
  await tab.getByRole("heading", { name: "What it says" }).waitFor();
  assert.ok(tab.url().endsWith("#/site/bundle"), tab.url());
  assert.equal(await tab.evaluate(() => localStorage.length), 0, "nothing of it stays");
  await tab.getByText("fleet-1").waitFor();
  await tab.getByText("all gateways").waitFor();
  await tab.screenshot({ path: join(wish.pictures, "bundle.png"), fullPage: true });
  await tab.getByRole("button", { name: "Hand it to the gateway" }).click();
  await tab.getByText("The gateway has taken the change.").waitFor();
  await tab.close();
  const config = await (await context.request.get(`${wish.origin}/api/v1/config`)).json();
  assert.equal(config.discovery.interval, "11s");
  await page.getByText("codes are scanned").waitFor({ state: "detached" });
  await label("Text of the change").fill("not a change");
  await label("Text of the change").blur();
  await page.getByText("This is no signed change.").waitFor();
  await label("Text of the change").fill(wish.bundle);
  await label("Text of the change").blur();
  await button("Hand it to the gateway").click();
  await page.getByText("The gateway had this change already.").waitFor();
}

/** A file of two pieces is sent, and what becomes of it is told. */
async function updates() {
  await link("Site").click();
  await title("Site");
  await link("Updates").click();
  await title("Updates");
  await page.getByText("fieldgate-test").waitFor();
  await screen("updates");
  await page.getByLabel("Firmware file").setInputFiles({ name: "fieldgate.raucb", mimeType: "application/octet-stream", buffer: Buffer.alloc(1_500_000, 7) });
  await button("Send it to the gateway").click();
  await page.getByText(/fieldgate.raucb .* is there, whole/).waitFor();
  await screen("updates-sent");
  await button("Install and start it").click();
  await page.getByText("Version 2.0 is installed.").waitFor();
  await screen("updates-installed");
}

/** What happened is told in plain words, and what happens now shows by itself. */
async function happened() {
  await link("Site").click();
  await title("Site");
  await link("What happened lately").click();
  await title("What happened lately");
  await page.locator(".events li", { hasText: "gate-cam" }).filter({ hasText: "delivers" }).first().waitFor();
  const before = await page.locator(".events li").count();
  await page.evaluate(() => {
    document.body.dataset["stays"] = "yes";
  });
  // A camera that is restarted from another tab: its break shows here without a reload.
  const tab = await context.newPage();
  await tab.goto(`${wish.origin}/#/cameras/yard-cam`);
  await tab.getByText("More", { exact: true }).click();
  await tab.getByRole("button", { name: "Restart this camera's stream" }).click();
  await tab.getByText("yard-cam begins anew.").waitFor();
  await page.waitForFunction((count) => document.querySelectorAll(".events li").length > count, before);
  await tab.locator(".status.good", { hasText: "Live" }).waitFor();
  await tab.locator(".chart polyline").first().waitFor();
  await tab.close();
  assert.equal(await page.evaluate(() => document.body.dataset["stays"]), "yes", "nothing was loaded anew");
  await screen("happened");
}

/** One button, a short soak, and a certificate that can be kept and printed. */
async function certificate() {
  await link("Site").click();
  await title("Site");
  await link("Acceptance certificate").click();
  await title("Acceptance certificate");
  await screen("certificate-begin");
  await label("How long").selectOption("10s");
  await button("Survey this site").click();
  await page.getByText(/The cameras are being watched/).waitFor();
  await screen("certificate-running");
  // Whoever leaves comes back to it.
  await link("Cameras").click();
  await title("Cameras");
  await link("Site").click();
  await title("Site");
  await link("Acceptance certificate").click();
  await page.locator(".verdict .status").waitFor();
  for (const name of ["gate-cam", "yard-cam", "The line"]) await page.getByRole("heading", { name, level: 2, exact: true }).waitFor();
  await page.getByText("Picture rate: good").first().waitFor();
  await page.getByText("Keyframes: good").first().waitFor();
  await screen("certificate");
  const path = await link("Save the signed file").getAttribute("href");
  const file = await (await context.request.get(wish.origin + path)).json();
  assert.deepEqual(Object.keys(file).sort(), ["public_key", "signature", "signed"]);
  await writeFile(join(wish.pictures, "certificate.json"), JSON.stringify(file));
  await page.emulateMedia({ media: "print" });
  await page.screenshot({ path: join(wish.pictures, "certificate-print.png"), fullPage: true });
  assert.equal(await page.locator(".places:visible, .top:visible, button:visible").count(), 0, "paper has nothing to press");
  await page.emulateMedia({ media: "screen" });
}

/** A wrong password for a running camera is tried, told with its countdown, and goes back by itself. */
async function remove() {
  await page.getByText("More", { exact: true }).click();
  await button("Remove this camera").click();
  await button("Remove yard-cam").click();
  await title("Cameras");
  await page.getByText("yard-cam was removed.").waitFor();
  await page.getByText("1 camera is well").waitFor();
}

async function inTheDark() {
  await page.emulateMedia({ colorScheme: "dark" });
  await page.goto(`${wish.origin}/#/cameras/gate-cam`);
  await title("gate-cam");
  await page.locator(".picture.large[data-pictures]").waitFor();
  await screen("camera-dark");
  await page.emulateMedia({ colorScheme: "light" });
}

/** How much of a slow line the whole page takes. */
async function weigh() {
  let bytes = 0;
  for (const path of files) bytes += gzipSync(await (await context.request.get(wish.origin + path)).body()).length;
  console.log(`${wish.screen}: ${files.size} files, ${bytes} bytes gzipped`);
  assert.ok(files.size >= 20 && bytes < MOST_BYTES, `${files.size} files with ${bytes} bytes`);
}

const steps = { claim, signIn, discoverAndAdd, sendOn, status, remove, inTheDark };
try {
  for (const [name, step] of Object.entries(steps)) {
    const began = Date.now();
    await step();
    console.log(`${wish.screen}: ${name}: ${((Date.now() - began) / 1000).toFixed(1)} s`);
    assert.deepEqual(faults, [], `during ${name}`);
  }
  await weigh();
} catch (error) {
  await page.screenshot({ path: join(wish.pictures, "failed.png"), fullPage: true }).catch(() => {});
  console.error(faults.join("\n"));
  console.error(error);
  process.exitCode = 1;
} finally {
  await browser.close();
}
