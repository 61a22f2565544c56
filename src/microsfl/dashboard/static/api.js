// The coordinator's JSON, and its events. Whoever listens hears of a lost connection; it is tried again until it heals.

const SESSION = "/api/session";
const RETRY_MS = [500, 1000, 2000, 4000];
const SILENT_MS = 20000; // an event source does not tell of a peer that vanished; after this long it is asked for
const CHECK_MS = 5000;

export class ApiError extends Error {
  constructor(status, code, message) {
    super(message);
    this.status = status;
    this.code = code;
  }
}

/** The clock of the coordinator may differ from the browser's: the difference, in seconds, from its answers' dates. */
let ahead = 0;

export const now = () => Date.now() / 1000 + ahead;

async function ask(method, path, body) {
  const options = { method, headers: { accept: "application/json" } };
  if (body !== undefined) {
    options.headers["content-type"] = "application/json";
    options.body = JSON.stringify(body);
  }
  let answer;
  try {
    answer = await fetch(path, options);
  } catch {
    throw new ApiError(0, "unreachable", "The coordinator does not answer.");
  }
  heard(answer.headers.get("date"));
  const content = await answer.json().catch(() => null);
  if (answer.ok) return content;
  if (answer.status === 401 && !(method === "POST" && path === SESSION)) document.dispatchEvent(new CustomEvent("logged-out"));
  const error = content && content.error;
  throw new ApiError(
    answer.status,
    error ? error.code : "unknown",
    error ? error.message : `The coordinator answered with status ${answer.status}.`,
  );
}

function heard(date) {
  const theirs = Date.parse(date || "") / 1000;
  const difference = theirs - Date.now() / 1000;
  // The date has whole seconds; anything below two may be rounding and travel.
  if (Number.isFinite(difference)) ahead = Math.abs(difference) < 2 ? 0 : difference;
}

export const get = (path) => ask("GET", path);
export const remove = (path) => ask("DELETE", path);
export const post = (path, body) => ask("POST", path, body);
export const runPath = (run) => `/api/runs/${encodeURIComponent(run)}`;

const open = new Set();

/** The state of all connections, for the banner: true while each one stands. */
export function connected() {
  return [...open].every((one) => one.up);
}

function changed() {
  document.dispatchEvent(new CustomEvent("connection"));
}

/**
 * Events of a URL until `close`: reopened by itself, and let go while nobody looks at the page, as a browser opens only
 * six connections to a server for all its tabs.
 *
 * url: function to the URL to open now. handlers: event name -> function of its data. about: what is asked after a loss,
 * which tells also of a session that is over; failed: told when that is refused, as for a run that does not exist.
 */
export class Events {
  constructor(url, handlers, about = SESSION, failed = () => {}) {
    Object.assign(this, { url, handlers, about, failed, up: true, tries: 0, source: null, timer: null });
    this.heard = Date.now();
    this.onVisible = () => this._look();
    document.addEventListener("visibilitychange", this.onVisible);
    this.check = setInterval(() => this._check(), CHECK_MS);
    open.add(this);
    this._look();
  }

  close() {
    document.removeEventListener("visibilitychange", this.onVisible);
    clearInterval(this.check);
    clearTimeout(this.timer);
    open.delete(this);
    this._drop();
    changed();
  }

  _look() {
    clearTimeout(this.timer);
    if (!open.has(this)) return;
    if (document.hidden) this._drop();
    else if (this.source === null) this._open();
  }

  _drop() {
    if (this.source !== null) this.source.close();
    this.source = null;
  }

  _open() {
    this._drop();
    const source = new EventSource(this.url());
    this.source = source;
    this.heard = Date.now();
    source.addEventListener("open", () => this._set(true));
    source.addEventListener("error", () => this._lost(source));
    for (const [name, handler] of Object.entries(this.handlers)) {
      source.addEventListener(name, (event) => {
        this.heard = Date.now();
        this._set(true);
        handler(JSON.parse(event.data));
      });
    }
  }

  async _lost(source) {
    if (source !== this.source) return;
    this._drop();
    this._set(false);
    this._later();
    try {
      // Whether it is the connection or the question that is wrong, an event source does not say.
      await get(this.about);
    } catch (error) {
      if (open.has(this) && error.status >= 400 && error.status < 500) this.failed(error);
    }
  }

  _later() {
    clearTimeout(this.timer);
    const wait = RETRY_MS[Math.min(this.tries, RETRY_MS.length - 1)];
    this.tries += 1;
    this.timer = setTimeout(() => this._look(), wait);
  }

  async _check() {
    if (document.hidden || this.source === null || !this.up || Date.now() - this.heard < SILENT_MS) return;
    const source = this.source;
    const answer = await fetch("/api/health", { signal: AbortSignal.timeout(CHECK_MS) }).catch(() => null);
    if (answer === null) this._lost(source);
    else this.heard = Date.now();
  }

  _set(up) {
    if (up) this.tries = 0;
    if (this.up === up) return;
    this.up = up;
    changed();
  }
}
