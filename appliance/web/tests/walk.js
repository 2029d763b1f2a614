// Walks through the page as an installer does, in a real Chromium: claim, discover, add, look, send on, status.
//
// usage: node walk.js JSON, with origin, code, cameras, user, password, upstream, screen (phone or desk) and pictures, a
// folder for screenshots. Ends with an error at the first thing that is not as it should be.

import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
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
  const isPicture = message.location().url.includes("/snapshot.jpg") && message.text().includes("503");
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
  await label("Code").fill(wish.code);
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
  await screen("found");
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
  await screen("site");
  await link("What happened lately").click();
  await title("What happened lately");
  await page.getByText("claim").first().waitFor();
  await screen("history");
  // A link opens the same thing again, and the session lasts over a reload.
  await page.goto(`${wish.origin}/#/cameras/yard-cam`);
  await page.reload();
  await title("yard-cam");
  await page.locator(".picture.large[data-pictures]").waitFor();
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
