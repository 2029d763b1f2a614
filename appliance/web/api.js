// The gateway's public HTTP API, and nothing else: what this page can do, a program can do.

import { texts } from "./texts.js";

/** @typedef {import("./types.js").Session} Session */
/** @typedef {import("./types.js").Problem} Problem */

/** @type {string | undefined} */
let csrf;
/** @type {() => void} */
let onLoggedOut = () => {};

/** An answer that says no, in words. `cause` holds the single problems. */
export class Refused extends Error {
  /**
   * @param {number} status
   * @param {string} detail
   * @param {Problem[]} problems
   * @param {Headers} headers
   */
  constructor(status, detail, problems, headers) {
    super(detail, { cause: problems.map((it) => [it.path, it.problem, it.remedy].filter(Boolean).join(": ")) });
    this.status = status;
    this.problems = problems;
    this.headers = headers;
  }
}

/** The gateway did not answer at all. */
export class Unreachable extends Error {
  constructor() {
    super(texts.unreachable);
  }
}

/**
 * What changes need: given with each session.
 *
 * @param {Session | null} session
 */
export function useSession(session) {
  csrf = session?.csrf;
}

/** @param {() => void} listener Called when the gateway does not know us any more. */
export function whenLoggedOut(listener) {
  onLoggedOut = listener;
}

/**
 * One request. Returns what came as JSON (`null` for none) with status and ETag; throws [`Refused`] or [`Unreachable`].
 *
 * @param {string} method
 * @param {string} path
 * @param {{body?: unknown, bytes?: Blob, etag?: string, quiet?: boolean}} [more] `bytes` go as they are
 * @returns {Promise<{status: number, body: any, etag: string}>}
 */
export async function ask(method, path, more = {}) {
  /** @type {Record<string, string>} */
  const headers = {};
  if (more.body !== undefined) headers["content-type"] = "application/json";
  if (more.bytes) headers["content-type"] = "application/octet-stream";
  if (method !== "GET" && csrf) headers["x-csrf-token"] = csrf;
  if (more.etag) headers["if-match"] = more.etag;
  const body = more.bytes ?? (more.body === undefined ? undefined : JSON.stringify(more.body));
  /** @type {Response} */
  let answer;
  try {
    answer = await fetch(path, { method, headers, body, credentials: "same-origin", cache: "no-store" });
  } catch {
    throw new Unreachable();
  }
  const text = await answer.text();
  const json = readJson(text);
  if (answer.ok) return { status: answer.status, body: json, etag: answer.headers.get("etag") ?? "" };
  if (answer.status === 401 && csrf && !more.quiet) onLoggedOut();
  const detail = typeof json?.detail === "string" ? json.detail : texts.refusedWith(answer.status);
  throw new Refused(answer.status, sentence(detail), Array.isArray(json?.problems) ? json.problems : [], answer.headers);
}

/** @param {string} text */
function readJson(text) {
  try {
    return text ? JSON.parse(text) : null;
  } catch {
    return null;
  }
}

/**
 * The gateway's words begin small and end without a stop.
 *
 * @param {string} text
 */
export function sentence(text) {
  const trimmed = text.trim();
  if (!trimmed) return "";
  return trimmed.charAt(0).toUpperCase() + trimmed.slice(1) + (/[.!?]$/.test(trimmed) ? "" : ".");
}

/** @param {string} path */
export const get = async (path) => (await ask("GET", path)).body;

/**
 * @param {string} path
 * @param {unknown} [body]
 */
export const post = async (path, body) => (await ask("POST", path, { body })).body;

/** Where a mountpoint's newest picture is. @param {string} name @param {number} width */
export const snapshotPath = (name, width) =>
  `/api/v1/mountpoints/${encodeURIComponent(name)}/snapshot.jpg?width=${width}`;
