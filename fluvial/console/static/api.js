// The console's API: one page a request, errors as {id, problem, hint}, and the stream of events.

const ANSWER_MS_MAX = 15_000;
/** A stream that is open but silent for so long is asked by a request, which either answers or fails. */
const SILENT_MS_MAX = 4_000;
const RECONNECT_MS = 2_000;
const LET_GO_MS = 30_000;
const HIDDEN_MS_MAX = 30_000;

export class Problem extends Error {
  /** `status` 0: nothing answered at all. */
  constructor(status, { id, problem, hint }) {
    super(problem);
    this.name = "Problem";
    this.status = status;
    this.id = id;
    this.hint = hint;
  }
}

function away() {
  return new Problem(0, {
    id: "",
    problem: "The console does not answer. What this page shows is the last it knew.",
    hint: "start it again with `fluvial console`",
  });
}

/** A query with what is set. */
export function withQuery(path, query = {}) {
  const set = Object.entries(query).filter(([, value]) => value !== null && value !== undefined && value !== "");
  return set.length ? `${path}?${new URLSearchParams(set)}` : path;
}

async function call(path, options = {}) {
  const timeout = AbortSignal.timeout(ANSWER_MS_MAX);
  const signal = options.signal ? AbortSignal.any([options.signal, timeout]) : timeout;
  let response;
  try {
    response = await fetch(`/api/${path}`, { ...options, signal, headers: { Accept: "application/json", ...options.headers } });
  } catch (error) {
    if (options.signal?.aborted) throw error;
    throw away();
  }
  if (response.ok) return response;
  const body = await response.json().catch(() => null);
  throw new Problem(
    response.status,
    body?.error ?? { id: "", problem: `The console answered ${response.status} ${response.statusText}.`, hint: "see its log" },
  );
}

/** All of one task's endpoints; `signal` ends what is under way when its page is left. */
export class Api {
  constructor(task) {
    this.root = `tasks/${encodeURIComponent(task)}`;
  }

  async read(path, query, signal) {
    return (await call(withQuery(`${this.root}/${path}`, query), { signal })).json();
  }

  async text(path, signal) {
    return (await call(`${this.root}/${path}`, { signal })).text();
  }

  async audit(version, token) {
    const response = await call(`${this.root}/audits`, {
      method: "POST",
      headers: { Authorization: `Bearer ${token}`, "Content-Type": "application/json" },
      body: JSON.stringify({ version }),
    });
    return response.json();
  }
}

export async function readTasks() {
  return (await call("tasks")).json();
}

/**
 * The task's events. Calls `now(snapshot)`, `audit(run)` and `state(connected, problem)`; reconnects by itself, and asks
 * once where the stream is silent, so that a quiet pipeline and a dead console are told apart.
 */
export class Events {
  constructor(api, { now, audit, state }) {
    Object.assign(this, { api, now, audit, state });
    this.heardMs = performance.now();
    this.asking = false;
    this.open();
    this.timer = setInterval(() => this.check(), 1000);
    this.looked = () => this.look();
    document.addEventListener("visibilitychange", this.looked);
  }

  /** A tab that nobody looks at gives its stream back: a browser has few to one address, and the console 64 in all. */
  look() {
    clearTimeout(this.sleep);
    if (document.hidden) this.sleep = setTimeout(() => this.source.close(), HIDDEN_MS_MAX);
    else if (this.source.readyState === EventSource.CLOSED) this.open();
  }

  open() {
    this.source = new EventSource(`/api/${this.api.root}/events`);
    this.source.addEventListener("open", () => this.state(true, null));
    this.source.addEventListener("now", (event) => {
      this.heard(JSON.parse(event.data));
      this.state(true, null);
    });
    this.source.addEventListener("audit", (event) => this.audit(JSON.parse(event.data)));
    // Others need the place. What is shown is asked for from now on, until there may be one again.
    this.source.addEventListener("gone", () => {
      this.source.close();
      this.state(false, null);
      this.again = setTimeout(() => this.reopen(), LET_GO_MS);
    });
    this.source.addEventListener("error", () => {
      this.state(false, null);
      // The browser tries again after a lost connection, but not after an answer such as 503.
      if (this.source.readyState === EventSource.CLOSED) this.again = setTimeout(() => this.reopen(), RECONNECT_MS);
    });
  }

  reopen() {
    if (this.source.readyState === EventSource.CLOSED) this.open();
  }

  heard(snapshot) {
    this.heardMs = performance.now();
    this.now(snapshot);
  }

  async check() {
    if (this.asking || document.hidden || performance.now() - this.heardMs < SILENT_MS_MAX) return;
    this.asking = true;
    try {
      this.heard(await this.api.read("now"));
      this.state(this.source.readyState === EventSource.OPEN, null);
    } catch (error) {
      this.state(false, error);
    } finally {
      this.asking = false;
    }
  }

  close() {
    clearInterval(this.timer);
    clearTimeout(this.again);
    clearTimeout(this.sleep);
    document.removeEventListener("visibilitychange", this.looked);
    this.source.close();
  }
}
