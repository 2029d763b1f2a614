// What a scanned QR code hands over behind the # of the page's address: a claim code, or a signed bundle in one or more parts.
// It leaves the address at once, so that it stands in no list of visited pages any longer than that.

/** Codes that one bundle may take, and characters of one, as `fieldgate bundle qr` makes them. */
const MOST_PARTS = 20;
const MOST_CHARACTERS = 4000;
/** Parts are kept until the last one is scanned, each of which opens the page anew; but not for longer. */
const KEY = "fieldgate-bundle-parts";
const KEPT_MS = 15 * 60_000;

/** @typedef {{digest: string, of: number, at: number, parts: Record<string, string>}} Parts */

let claim = "";
let bundle = "";

/** Takes it out of the address; whether there was something. */
export function takeHanded() {
  const found = /^#(claim|bundle)=([A-Za-z0-9._-]+)$/.exec(location.hash);
  if (!found) return false;
  const [, kind, text = ""] = found;
  history.replaceState(null, "", kind === "bundle" ? "#/site/bundle" : location.pathname);
  if (text.length > MOST_CHARACTERS) return true;
  if (kind === "claim") claim = text;
  else takeBundle(text);
  return true;
}

/** The claim code; given once. */
export function handedClaim() {
  const code = claim;
  claim = "";
  return code;
}

/** The whole bundle; given once. */
export function handedBundle() {
  const text = bundle;
  bundle = "";
  return text;
}

/**
 * A bundle, or a part of one. Returns whether it was either.
 *
 * @param {string} text
 */
export function takeBundle(text) {
  if (text.startsWith("fgb1.")) {
    bundle = text;
    localStorage.removeItem(KEY);
    return true;
  }
  const part = /^(\d{1,2})\.(\d{1,2})\.([0-9a-f]{8})\.([A-Za-z0-9._-]+)$/.exec(text);
  const [, number, of, digest = "", piece = ""] = part ?? [];
  const [nth, all] = [Number(number), Number(of)];
  if (!part || all < 2 || all > MOST_PARTS || nth < 1 || nth > all) return false;
  const known = kept();
  const parts = known?.digest === digest && known.of === all ? known.parts : {};
  parts[String(nth)] = piece;
  if (Object.keys(parts).length < all) {
    localStorage.setItem(KEY, JSON.stringify({ digest, of: all, at: Date.now(), parts }));
    return true;
  }
  localStorage.removeItem(KEY);
  bundle = Array.from({ length: all }, (_, index) => parts[String(index + 1)]).join("");
  return true;
}

/** The parts that are still to be scanned, by number, and how many there are; nothing if none is waited for. */
export function missingParts() {
  const known = kept();
  if (!known) return null;
  const numbers = Array.from({ length: known.of }, (_, index) => index + 1);
  return { of: known.of, missing: numbers.filter((number) => known.parts[String(number)] === undefined) };
}

/** Lets go of the parts that came. */
export function forgetParts() {
  localStorage.removeItem(KEY);
}

/** @returns {Parts | null} */
function kept() {
  try {
    const parts = /** @type {Parts | null} */ (JSON.parse(localStorage.getItem(KEY) ?? "null"));
    if (parts && Math.abs(Date.now() - parts.at) < KEPT_MS) return parts;
  } catch {
    // What is no JSON is not ours.
  }
  localStorage.removeItem(KEY);
  return null;
}
