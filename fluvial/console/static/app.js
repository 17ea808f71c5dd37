// The frame: which task, which page, the live snapshot, health, search, theme. Pages do the rest.

import { Api, Events, readTasks, withQuery } from "./api.js";
import { h, show } from "./dom.js";
import { duration, known, parsePlace } from "./format.js";
import { clock, command, icon, judged, problemPanel, emptyPanel, refreshTimes, skeleton, told } from "./widgets.js";
import * as now from "./pages/now.js";

const STALE_SECONDS_MAX = 5;
const MASTER = document.title;

/** Pages in the order of the navigation; the first that matches wins. All but the first are fetched when needed. */
const ROUTES = [
  [/^\/$/, () => now],
  [/^\/versions$/, () => import("./pages/versions.js")],
  [/^\/versions\/(\d+)$/, () => import("./pages/version.js")],
  [/^\/flow$/, () => import("./pages/flow.js")],
  [/^\/refused$/, () => import("./pages/refused.js")],
  [/^\/defence$/, () => import("./pages/defence.js")],
  [/^\/record$/, () => import("./pages/record.js")],
  [/^\/fleet$/, () => import("./pages/fleet.js")],
  [/^\/fleet\/devices\/([^/]+)$/, () => import("./pages/device.js")],
  [/^\/audit$/, () => import("./pages/audit.js")],
];

const NAVIGATION = [
  ["/", "Now"],
  ["/versions", "Versions"],
  ["/flow", "Flow"],
  ["/refused", "Refused"],
  ["/defence", "Defence"],
  ["/fleet", "Fleet"],
  ["/audit", "Audit"],
];

const $ = (id) => document.getElementById(id);

const frame = {
  tasks: [],
  task: null,
  version: "",
  command: "fluvial",
  api: null,
  events: null,
  snapshot: null,
  receivedMs: 0,
  connected: null,
  problem: null,
  page: null,
  leave: null,
  path: "/",
  drawing: false,
};

/** What a page gets. */
class Context {
  constructor(path, query, params) {
    this.leaving = new AbortController();
    Object.assign(this, { path, query, params, signal: this.leaving.signal, opened: new Set(), kept: new Map(), task: frame.task, api: frame.api });
  }

  get snapshot() {
    return frame.snapshot;
  }

  /** Seconds that the snapshot is old, where that is too old to judge by; else null. */
  get late() {
    return late();
  }

  /** The address of a page, with the task where it is not the default one. */
  link(path, query = {}) {
    const task = frame.task === frame.fallback ? null : frame.task;
    return `#${withQuery(path, { ...query, task })}`;
  }

  /** A command of `fluvial` for the home of this console. */
  fluvial(words) {
    return `${frame.command} ${words}`;
  }

  go(path, query = {}) {
    location.hash = this.link(path, query);
  }

  redraw() {
    if (frame.page?.ctx === this) redraw();
  }
}

function address() {
  const [path, query = ""] = location.hash.replace(/^#/, "").split("?");
  return { path: path || "/", query: Object.fromEntries(new URLSearchParams(query)) };
}

function redraw() {
  if (frame.drawing) return;
  frame.drawing = true;
  requestAnimationFrame(() => {
    frame.drawing = false;
    drawFrame();
    if (frame.page) show($("page"), frame.page.view());
  });
}

async function open(first = false) {
  const { path, query } = address();
  const task = query.task && frame.tasks.some((one) => one.task === query.task) ? query.task : frame.fallback;
  if (task !== frame.task) follow(task);
  const samePlace = path === frame.path;
  if (path !== "/record" && document.activeElement !== $("search-text")) $("search-text").value = "";
  frame.path = path;
  frame.page?.ctx.leaving.abort();
  for (const [pattern, load] of ROUTES) {
    const found = pattern.exec(path);
    if (!found) continue;
    const ctx = new Context(path, query, found.slice(1).map(decode));
    if (samePlace && frame.page) Object.assign(ctx, { opened: frame.page.ctx.opened, kept: frame.page.ctx.kept });
    if (!samePlace) show($("page"), skeleton(6, "Loading the page"));
    await enter(ctx, load, first, samePlace);
    return;
  }
  enterNowhere(path);
}

function decode(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text; // a stray % in an address that somebody typed
  }
}

async function enter(ctx, load, first, samePlace) {
  frame.page = { ctx, view: () => skeleton(6, "Loading the page") };
  let module;
  try {
    module = await load();
  } catch (error) {
    if (ctx.signal.aborted) return;
    const panel = () => problemPanel({ id: "", message: `This page could not be loaded: ${error.message}`, hint: "start the console again with `fluvial console`" }, () => location.reload());
    frame.page = { ctx, view: panel };
    redraw();
    return;
  }
  if (ctx.signal.aborted) return;
  frame.page = { ctx, ...module.open(ctx) };
  document.title = `${frame.page.title} · ${frame.task} · ${MASTER}`;
  drawFrame();
  show($("page"), frame.page.view());
  if (!first && !samePlace) {
    scrollTo(0, 0);
    $("page").focus({ preventScroll: true });
  }
}

function enterNowhere(path) {
  document.title = MASTER;
  const view = () => emptyPanel("no such page", `There is no page ${path} here. The pages are in the navigation above.`, null, "nowhere");
  frame.page = { ctx: new Context(path, {}, []), view };
  drawFrame();
  show($("page"), view());
}

/** Follows another task: its own stream, and nothing of the one before. */
function follow(task) {
  frame.events?.close();
  Object.assign(frame, { task, api: new Api(task), snapshot: null, connected: null, problem: null });
  frame.events = new Events(frame.api, {
    now(snapshot) {
      frame.snapshot = snapshot;
      frame.receivedMs = performance.now();
      frame.problem = null;
      clock.skewMs = snapshot.at_ms - Date.now();
      announce(snapshot.health);
      frame.page?.now?.(snapshot);
      redraw();
    },
    audit(run) {
      frame.page?.audit?.(run);
      redraw();
    },
    state(connected, problem) {
      if (frame.connected === connected && frame.problem === problem) return;
      Object.assign(frame, { connected, problem });
      redraw();
    },
  });
}

let said = "";

/** Health is read out when its word or level changes, and only then. */
function announce(health) {
  const text = `Health: ${health.word}. ${health.part}: ${health.reason}`;
  const key = `${health.level} ${health.word} ${health.part}`;
  if (key !== said) $("said").textContent = text;
  said = key;
}

/** Seconds since the snapshot's facts were true. */
function staleSeconds() {
  return known(frame.snapshot?.stale_seconds) ? frame.snapshot.stale_seconds + (performance.now() - frame.receivedMs) / 1000 : null;
}

function late() {
  const stale = staleSeconds();
  return stale !== null && stale > STALE_SECONDS_MAX ? stale : null;
}

function drawFrame() {
  const current = NAVIGATION.findLast(([path]) => frame.path === path || (path !== "/" && frame.path.startsWith(path)))?.[0];
  const ctx = frame.page?.ctx;
  const active = frame.path === "/record" ? null : current;
  if (ctx) {
    show($("nav"), h("ul", null, NAVIGATION.map(([path, name]) => h("li", { key: path }, h("a", { href: ctx.link(path), id: `nav-${name.toLowerCase()}`, "aria-current": path === active ? "page" : null }, name))), h("li", { key: "runbooks", class: "apart" }, h("a", { href: "/docs/runbooks/README.md", id: "nav-runbooks" }, "Runbooks"))));
  }
  drawTask();
  drawLive();
  show($("banner"), banner());
}

function drawTask() {
  if (frame.tasks.length < 2) {
    show($("task"), frame.task ? h("span", { class: "task-name", id: "task-name" }, frame.task) : null);
    return;
  }
  const change = (event) => {
    const task = event.currentTarget.value;
    location.hash = `#${withQuery("/", { task: task === frame.fallback ? null : task })}`;
  };
  show(
    $("task"),
    h("label", { class: "unseen", for: "task-name" }, "Task"),
    h("select", { id: "task-name", on: { change }, value: frame.task }, frame.tasks.map(({ task }) => h("option", { value: task, key: task }, task))),
  );
}

function drawLive() {
  const old = late();
  const word = frame.connected === false ? "reconnecting" : old !== null ? `${duration(Math.floor(old))} old` : frame.snapshot ? "live" : "connecting";
  const level = frame.connected === false || old !== null ? "warn" : frame.snapshot ? "ok" : "unknown";
  const health = judged(frame.snapshot?.health, old);
  show(
    $("live"),
    health ? h("a", { class: `status ${health.level}`, href: frame.page?.ctx.link("/"), id: "health-chip", title: health.reason }, icon(health.level), h("span", null, health.word)) : null,
    h("span", { class: `status plain ${level}`, id: "live-state", "data-state": word.split(" ")[0] }, icon(level), h("span", null, word)),
  );
}

/** The runbook and the errors of parts that are away. */
function mendsOf(names) {
  const mend = frame.snapshot?.health?.parts.find((one) => names.includes(one.name))?.mend;
  return mend ? [" ", h("a", { href: mend.runbook?.page ?? "/docs/runbooks/README.md" }, "Runbook"), mend.errors.map((one) => [", ", h("a", { href: one.page }, one.id)])] : null;
}

/** The worst thing to know about the data itself, with the next command. */
function banner() {
  const stale = staleSeconds();
  const old = stale === null ? "" : ` What is shown is ${duration(Math.floor(stale))} old.`;
  const strip = (level, test, text, next, more) => h("div", { class: `strip ${level}`, key: test, "data-test": test }, icon(level), h("span", null, told(text), more), next ? command(next) : null);
  if (frame.connected === false && frame.problem) return strip("bad", "console-away", `${frame.problem.message}${old}`, `${frame.command} console`);
  const away = Object.entries(frame.snapshot?.sources ?? {}).filter(([, source]) => source.level === "bad");
  if (away.length) {
    const names = away.map(([name]) => (name === "kafka" ? "Kafka" : "the store")).join(" and ");
    const reasons = [...new Set(away.map(([, source]) => source.reason || "no answer"))].join("; ");
    return strip("bad", "stack-down", `Away: ${names}. ${reasons.charAt(0).toUpperCase()}${reasons.slice(1)}.${old}`, `${frame.command} up`, mendsOf(away.map(([name]) => name)));
  }
  if (late() !== null) return strip("warn", "stale", `Nothing new for ${duration(Math.floor(stale))}.${frame.connected ? "" : " Reconnecting."} Ages and rates below are of then.`);
  return null;
}

function wireSearch() {
  const input = $("search-text");
  const help = (text) => {
    $("search-help").textContent = text;
  };
  $("search").addEventListener("submit", (event) => {
    event.preventDefault();
    const text = input.value.trim();
    if (!text) return help("Type an update’s id, or a place such as eu[3]@120394.");
    help("");
    const ctx = frame.page?.ctx;
    const version = /^v(\d+)$/.exec(text);
    if (version) return ctx?.go(`/versions/${version[1]}`);
    return ctx?.go("/record", parsePlace(text) ?? { update_id: text });
  });
  input.addEventListener("input", () => help(""));
  document.addEventListener("keydown", (event) => {
    const typing = /^(INPUT|SELECT|TEXTAREA)$/.test(document.activeElement?.nodeName ?? "");
    if (event.key === "/" && !typing && !event.ctrlKey && !event.metaKey && !event.altKey) {
      event.preventDefault();
      input.focus();
    }
  });
}

function wireTheme() {
  const root = document.documentElement;
  const dark = () => (root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches);
  const draw = () => {
    show($("theme"), h("span", { class: "glyph", "aria-hidden": "true" }), h("span", { class: "unseen" }, dark() ? "Light theme" : "Dark theme"));
    $("theme").title = dark() ? "Light theme" : "Dark theme";
    document.dispatchEvent(new Event("fluvial-theme"));
  };
  $("theme").addEventListener("click", () => {
    root.dataset.theme = dark() ? "light" : "dark";
    try {
      localStorage.setItem("fluvial-theme", root.dataset.theme);
    } catch {
      // Storage may be forbidden: the choice then lasts as long as the page.
    }
    draw();
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  draw();
}

async function start() {
  show($("page"), skeleton(6, "Asking the console which tasks there are"));
  try {
    const { tasks, default: fallback, version, command: called } = await readTasks();
    Object.assign(frame, { tasks, fallback, version, command: called ?? "fluvial" });
  } catch (problem) {
    show($("page"), h("div", { class: "page-head" }, h("h1", null, "Nothing to show yet")), problemPanel(problem, start));
    return;
  }
  if (!frame.fallback) {
    show($("page"), h("div", { class: "page-head" }, h("h1", null, "No task yet")), emptyPanel("nothing to follow", "A task is made by the demo, or by running a task file of yours. This page finds it by itself.", `${frame.command} demo`, "no-task"));
    setTimeout(start, 2000);
    return;
  }
  await open(true);
  addEventListener("hashchange", () => open());
  setInterval(() => {
    refreshTimes(document.body);
    // The second in which what is shown becomes too old to judge by.
    if ((late() !== null) !== frame.wasLate) redraw();
    frame.wasLate = late() !== null;
    drawLive();
    show($("banner"), banner());
  }, 1000);
}

wireTheme();
wireSearch();
$("skip").addEventListener("click", (event) => {
  event.preventDefault();
  $("page").focus();
});
start();
