// The service's API: requests, uploads, and the events of jobs.

import { $, words } from "./dom.js";

export const BASE = "stability-ai/sdxl";
const token = { get: () => sessionStorage.getItem("token"), set: (value) => sessionStorage.setItem("token", value) };

/** The service's refusal: one line, and the fields that it names. */
export class Refusal extends Error {
  constructor(message, fields = {}, status = 0) {
    super(message);
    this.fields = fields;
    this.status = status;
  }
}

let asked = null;

/** Asks for a token, once for all requests that wait for one. */
function askForToken() {
  asked ??= new Promise((resolve, reject) => {
    const dialog = $("token-dialog"), input = $("token-input");
    $("token-problem").textContent = token.get() ? "The service does not know this token." : "";
    dialog.returnValue = input.value = "";
    dialog.addEventListener("close", () => {
      asked = null;
      if (dialog.returnValue !== "token") return reject(new Refusal("The service asks for a token. Load this page again to give one.", {}, 401));
      token.set(input.value.trim());
      resolve();
    }, { once: true });
    dialog.showModal();
  });
  return asked;
}

/** A request to the service. 401 asks for a token and tries again. */
export async function request(path, options = {}) {
  const sent = token.get(), headers = new Headers(options.headers);
  if (sent) headers.set("Authorization", `Bearer ${sent}`);
  let answer;
  try {
    answer = await fetch(path, { ...options, headers });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refusal("The service does not answer. Is it still running?");
  }
  if (answer.status === 401) {
    // Another request may have asked meanwhile.
    if (token.get() === sent) await askForToken();
    return request(path, options);
  }
  if (!answer.ok) throw await refusal(answer);
  return answer;
}

/** Reads the forms that errors have: problem+json, or FastAPI's list of fields. */
async function refusal(answer) {
  const text = await answer.text();
  let body;
  try { body = JSON.parse(text); } catch { return new Refusal(text || `HTTP ${answer.status}`, {}, answer.status); }
  const fields = {};
  const listed = body.invalid_fields ?? (Array.isArray(body.detail) ? body.detail : []);
  for (const problem of listed) fields[problem.field?.replace(/^input\./, "") ?? problem.loc?.at(-1)] = problem.description ?? problem.msg;
  const named = Object.entries(fields).map(([name, what]) => `${words(name)}: ${what}`).join("\n");
  const detail = named || (typeof body.detail === "string" ? body.detail : "");
  return new Refusal(detail || body.title || body.error || `HTTP ${answer.status}`, fields, answer.status);
}

export const json = async (path, options) => (await request(path, options)).json();
export const post = (path, body) => json(path, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body ?? {}) });
export const v1 = (path) => `/v1/${path}${path.includes("?") ? "&" : "?"}file_urls=true`;
export const jobPath = (kind, id, rest = "") => v1(`${kind}s/${encodeURIComponent(id)}${rest}`);
export const blobOf = async (url) => (await request(url)).blob();

/** The results of a page of a list, and the path of the next page. */
export async function list(path) {
  const page = await json(path);
  if (!page.next) return { results: page.results, next: null };
  // The page's URL may be another behind a proxy.
  const url = new URL(page.next, location.href);
  url.searchParams.set("file_urls", "true");
  return { results: page.results, next: url.pathname.replace(/^\/v1\/v1/, "/v1") + url.search };
}

/** The results of all pages of a list. */
export async function all(path) {
  const results = [];
  for (let next = path; next;) {
    const page = await list(next);
    results.push(...page.results);
    next = page.next;
  }
  return results;
}

/** Uploads a file. The answer is the file's URL. */
export async function upload(file, name) {
  const form = new FormData();
  form.append("content", file, name);
  return (await json("/v1/files", { method: "POST", body: form })).urls.get;
}

/** A file that a request has named, as far as the service has it or the request itself: the page loads nothing from elsewhere. */
export async function named(address) {
  const [, kind, encoded] = /^data:([^;,]*);base64,(.*)$/s.exec(address) ?? [];
  if (encoded) return new Blob([Uint8Array.from(atob(encoded), (letter) => letter.charCodeAt(0))], { type: kind });
  const { pathname, search } = new URL(address, location.href);
  if (pathname.startsWith("/outputs/")) return blobOf(pathname + search);
  const [, id] = /^(?:\/v1)+\/files\/(\w+)/.exec(pathname) ?? [];
  if (!id) throw new Refusal(`${address} is not a file of this service.`);
  const download = new URL((await json(`/v1/files/${id}`)).urls.download, location.href);
  return blobOf(download.pathname + download.search);
}

export const isOver = (job) => ["succeeded", "failed", "canceled", "aborted"].includes(job.status);

/** Streams at the same time: browsers allow six connections to a host, and other requests need some. */
const STREAMS = 3;
let streams = 0;

/** Follows a job's events until the job is over, also over a restart of the service. `on` has a function for each name of an event, and `lost` for
 * when the service does not answer. The answer is the job; none once `signal` is aborted. */
export async function follow(kind, id, on, signal) {
  for (;;) {
    try {
      const over = streams < STREAMS ? await stream(kind, id, on, signal) : null;
      if (over) return over;
      // The stream broke off, or there is none: the job says whether it is over.
      const job = await json(jobPath(kind, id), { signal });
      if (isOver(job)) return job;
    } catch (error) {
      if (signal?.aborted) return new Promise(() => {});
      if ([401, 403, 404].includes(error.status)) throw error;
      on.lost?.();
    }
    await new Promise((resolve) => setTimeout(resolve, 1000));
  }
}

async function stream(kind, id, on, signal) {
  streams += 1;
  try {
    const answer = await request(`/events/${kind}/${encodeURIComponent(id)}?file_urls=true`, { signal, headers: { Accept: "text/event-stream" } });
    return await readEvents(answer.body, on);
  } finally {
    streams -= 1;
  }
}

async function readEvents(body, on) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return null;
    text += value.replaceAll("\r", "");
    for (let end; (end = text.indexOf("\n\n")) >= 0; text = text.slice(end + 2)) {
      const lines = text.slice(0, end).split("\n");
      const name = lines.find((line) => line.startsWith("event:"))?.slice(6).trim() ?? "message";
      const data = lines.filter((line) => line.startsWith("data:")).map((line) => line.slice(5).replace(/^ /, "")).join("\n");
      if (!data) continue;
      const parsed = JSON.parse(data);
      on[name]?.(parsed);
      if (name === "completed") { reader.cancel(); return parsed; }
    }
  }
}
