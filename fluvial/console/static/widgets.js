// What pages are made of: status, times, commands, tables, states. Every status is word, shape and colour.

import { h } from "./dom.js";
import { absolute, ago, count, known, NOT_KNOWN, percent, things } from "./format.js";

const SHAPES = {
  ok: [["circle", { cx: 8, cy: 8, r: 7 }], ["path", { d: "M4.8 8.2l2.2 2.2 4.2-4.6" }]],
  warn: [["path", { d: "M8 1.2 15.4 14.6H.6z" }], ["path", { d: "M8 6v4M8 12.1v.6" }]],
  bad: [["path", { d: "M5 1h6l4 4v6l-4 4H5l-4-4V5z" }], ["path", { d: "M5.4 5.4l5.2 5.2M10.6 5.4l-5.2 5.2" }]],
  unknown: [["circle", { cx: 8, cy: 8, r: 6.2, class: "hollow" }], ["path", { d: "M5.4 8h5.2" }]],
  busy: [["circle", { cx: 8, cy: 8, r: 6.2, class: "hollow" }], ["path", { d: "M8 4.6V8l2.6 1.6" }]],
};

export function icon(level) {
  const shapes = SHAPES[level] ?? SHAPES.unknown;
  return h("svg", { class: "icon", viewBox: "0 0 16 16", "aria-hidden": "true" }, shapes.map(([tag, props]) => h(tag, props)));
}

/** Shape, colour and word. `level`: ok, warn, bad, unknown or busy. */
export function status(level, word, title) {
  return h("span", { class: `status ${level}`, title }, icon(level), h("span", null, word));
}

/** Health as it may be said now: what is too old proves nothing good any more. */
export function judged(health, lateSeconds) {
  if (!health || lateSeconds === null || health.level === "bad" || health.level === "warn") return health;
  const parts = health.parts.map((one) => (one.level === "ok" ? { ...one, level: "unknown" } : one));
  return { ...health, parts, level: "unknown", word: "not known", reason: `${health.word} when last heard of: ${health.reason}` };
}

/** The level of a verdict's outcome. */
export function outcomeLevel(outcome) {
  if (outcome === "accepted") return "ok";
  if (outcome === "control") return "busy";
  return outcome === "skipped" || !outcome ? "unknown" : "bad";
}

export function outcome(name) {
  return status(outcomeLevel(name), String(name ?? "no verdict yet").replaceAll("_", " "));
}

const TRENDS = {
  rising: ["M2 11.5 8 4.5l6 7", "rising"],
  falling: ["M2 4.5l6 7 6-7", "falling"],
  steady: ["M2 8h12", "steady"],
};

/** Which way it goes; `alarming` where rising is bad news and not the coming and going of a moment. */
export function trend(name, alarming = false) {
  const [path, word] = TRENDS[name] ?? [null, "no trend"];
  if (!path) return null;
  return h(
    "span",
    { class: alarming ? `trend ${name} alarming` : `trend ${name}` },
    h("svg", { class: "icon line", viewBox: "0 0 16 16", "aria-hidden": "true" }, h("path", { d: path })),
    word,
  );
}

const LAG_WARN_SECONDS = 10;
const LAG_BAD_SECONDS = 60;

/** Lag's level: what falls is on its way to be mended, and where all is `over` nothing lags that anybody waits for. */
export function lagLevel({ lag_seconds: seconds, trend: way }, over = false) {
  if (!known(seconds)) return "unknown";
  if (over) return "ok";
  if (seconds > LAG_BAD_SECONDS) return "bad";
  return seconds > LAG_WARN_SECONDS && way !== "falling" ? "warn" : "ok";
}

/** The server's clock less ours, so that ages are right on another machine. */
export const clock = { skewMs: 0, nowMs: () => Date.now() + clock.skewMs };

/** How long ago, kept current by the page's clock; the absolute time in its title. */
export function time(ms) {
  if (!known(ms)) return h("span", { class: "faint" }, NOT_KNOWN);
  return h("time", { datetime: new Date(ms).toISOString(), title: absolute(ms), "data-ms": ms }, ago((clock.nowMs() - ms) / 1000));
}

export function refreshTimes(root) {
  for (const node of root.querySelectorAll("time[data-ms]")) {
    const text = ago((clock.nowMs() - Number(node.dataset.ms)) / 1000);
    if (node.textContent !== text) node.textContent = text;
  }
}

export function hash(text, { href = null, length = 12 } = {}) {
  if (!text) return h("span", { class: "faint" }, NOT_KNOWN);
  const short = text.length > length ? `${text.slice(0, length)}…` : text;
  return href ? h("a", { class: "hash", href, title: text }, short) : h("code", { class: "hash", title: text }, short);
}

async function copy(event, text) {
  const button = event.currentTarget;
  let word = "Copied";
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    // Without permission: selected, so that the keyboard's copy takes it.
    const code = button.parentElement.querySelector("code");
    if (code) getSelection().selectAllChildren(code);
    word = "Press Ctrl+C";
  }
  button.dataset.said = word;
  button.querySelector("[role=status]").textContent = word;
  setTimeout(() => {
    delete button.dataset.said;
    button.querySelector("[role=status]").textContent = "";
  }, 2000);
}

/** A command to copy. `name` becomes its data-test. */
export function command(text, name = "command") {
  if (!text) return null;
  return h(
    "div",
    { class: "command", "data-test": name },
    h("span", { class: "prompt", "aria-hidden": "true" }, "$"),
    h("code", null, text),
    h(
      "button",
      { type: "button", class: "copy", "aria-label": `Copy: ${text}`, on: { click: (event) => copy(event, text) } },
      h("span", { "aria-hidden": "true" }, "Copy"),
      h("span", { role: "status", class: "unseen" }),
    ),
  );
}

/** Text with `commands` in it. */
export function prose(text) {
  return String(text ?? "").split("`").map((part, index) => (index % 2 ? h("code", null, part) : part));
}

/** The page of an error, which the console serves. */
export function errorLink(id) {
  return id ? h("a", { href: `/docs/errors/${id}.md`, key: id }, id) : null;
}

/** Text with `commands` in it, and ids of errors as links to their pages. */
export function told(text) {
  return String(text ?? "").split(/(FLV-\d{4})/).map((part, index) => (index % 2 ? errorLink(part) : prose(part)));
}

/** What mends a part: commands to copy, the runbook, the errors' pages. `mend`: as the API has it, or null. */
export function mending(mend, name = "mend") {
  if (!mend || (!mend.commands.length && !mend.runbook && !mend.errors.length)) return null;
  const links = [mend.runbook ? h("a", { href: mend.runbook.page, "data-test": "runbook" }, `Runbook: ${mend.runbook.title.toLowerCase()}`) : null, ...mend.errors.map((one) => h("a", { href: one.page, key: one.id }, one.id))].filter(Boolean);
  return h("div", { class: "mend", "data-test": name }, mend.commands.map((text) => command(text, "mend-command")), links.length ? h("p", { class: "note links-line" }, links) : null);
}

export function stat(label, value, note, props = {}) {
  return h(
    "div",
    { class: "stat", ...props },
    h("dt", null, label),
    h("dd", null, h("span", { class: "value" }, value), note ? h("span", { class: "note" }, note) : null),
  );
}

export function stats(...items) {
  return h("dl", { class: "stats" }, items);
}

export function card(title, { id, note, actions, level = 2, wide = false, key } = {}, ...children) {
  return h(
    "section",
    { class: wide ? "card wide" : "card", id, key: key ?? id, "aria-labelledby": id ? `${id}-title` : null },
    h(
      "div",
      { class: "card-head" },
      h(`h${level}`, { id: id ? `${id}-title` : null }, title),
      note ? h("p", { class: "note" }, note) : null,
      actions ? h("div", { class: "actions" }, actions) : null,
    ),
    children,
  );
}

/** A box that takes the keyboard's focus only while it scrolls. */
class ScrollBox extends HTMLElement {
  connectedCallback() {
    this.observer = new ResizeObserver(() => this.measure());
    this.observer.observe(this);
    if (this.firstElementChild) this.observer.observe(this.firstElementChild);
  }

  disconnectedCallback() {
    this.observer.disconnect();
  }

  measure() {
    const scrolls = this.scrollWidth > this.clientWidth + 1 || this.scrollHeight > this.clientHeight + 1;
    if (scrolls) {
      this.setAttribute("tabindex", "0");
      this.setAttribute("role", "group");
    } else {
      this.removeAttribute("tabindex");
      this.removeAttribute("role");
    }
  }
}
customElements.define("scroll-box", ScrollBox);

/**
 * A table. `columns`: {label, kind: "number" | "text", head: whether it names the row, cell: (row) => node, note}.
 * `key`: (row) => what names it. `tall`: bounded height, the heads stay. `stacks`: on a phone each row is a block of its
 * own, with the heads before the values; else the table scrolls in its box.
 */
export function table({ caption, columns, rows, key, empty = "nothing", test, tall = false, stacks = false, current = () => false }) {
  return h(
    "scroll-box",
    { class: tall ? "scroll tall" : "scroll", "aria-label": caption },
    h(
      "table",
      { "data-test": test, class: stacks ? "stacks" : null },
      h("caption", { class: "unseen" }, caption),
      h("thead", null, h("tr", null, columns.map((column) => h("th", { scope: "col", class: column.kind, title: column.note, "aria-sort": column.sorted }, column.label)))),
      h(
        "tbody",
        null,
        rows.length === 0 ? h("tr", { key: "empty" }, h("td", { class: "empty-row", colspan: columns.length }, empty)) : null,
        rows.map((row, index) =>
          h(
            "tr",
            { key: key ? key(row) : index, class: current(row) ? "current" : null },
            columns.map((column) =>
              h(column.head ? "th" : "td", { scope: column.head ? "row" : null, class: column.kind, "data-label": stacks && typeof column.label === "string" ? column.label : null }, column.cell(row, index)),
            ),
          ),
        ),
      ),
    ),
  );
}

/** A bar of a share between 0 and 1, whose full length is 1 wherever it stands; the number stands beside it, so it is not for screen readers. */
export function bar(share, level = "accent") {
  return h("span", { class: `bar ${level}`, "aria-hidden": "true", style: { "--share": `${(100 * Math.min(1, Math.max(0, share || 0))).toFixed(2)}%` } });
}

export function meter(value, max, words) {
  return h("span", { class: "meter" }, h("span", null, words), bar(max ? value / max : 0));
}

/** A share of all as a bar and in words; the bar is full at 100 %. */
export function shareBar(value, all, digits = 0) {
  return h("span", { class: "meter" }, bar(all ? value / all : 0), h("span", null, percent(all ? value / all : null, digits)));
}

/** "showing n of N": wherever data is cut. */
export function shownOf(shown, of, noun) {
  if (known(of) && of <= shown) return `${things(of, noun)}, all shown`;
  return known(of) ? `showing ${count(shown)} of ${count(of)} ${noun}` : `showing ${count(shown)} ${noun}; how many there are in all is not known`;
}

/** Links to pages of a list. `links`: [label, href or null]. */
export function pager(text, links, test = "pager") {
  return h(
    "nav",
    { class: "pager", "aria-label": `Pages of the list: ${text}`, "data-test": test },
    h("span", { class: "note" }, text),
    h(
      "span",
      { class: "links" },
      links.map(([label, href]) =>
        href ? h("a", { class: "button", href, key: label }, label) : h("span", { class: "button off", key: `${label}-off`, "aria-disabled": "true" }, label),
      ),
    ),
  );
}

export function skeleton(lines = 5, label = "Loading") {
  return h(
    "div",
    { class: "skeleton", role: "status", key: "skeleton", "data-test": "loading" },
    h("span", { class: "unseen" }, `${label}…`),
    Array.from({ length: lines }, (_, index) => h("span", { class: "line", style: { "--width": `${92 - ((index * 17) % 40)}%` } })),
  );
}

/** What went wrong, and the next step. */
export function problemPanel(problem, retry) {
  const commands = [...String(problem.hint ?? "").matchAll(/`((?:\S*\/)?fluvial [^`]+)`/g)].map((found) => found[1]);
  return h(
    "div",
    { class: "panel bad", role: "alert", "data-test": "problem" },
    h("p", { class: "panel-title" }, status("bad", "it could not be read"), problem.id ? [" ", errorLink(problem.id)] : null),
    h("p", { class: "message" }, told(problem.message)),
    problem.hint ? h("p", { class: "note" }, "Next: ", prose(problem.hint)) : null,
    commands.map((text) => command(text)),
    retry ? h("button", { type: "button", on: { click: retry } }, "Try again") : null,
  );
}

export function emptyPanel(title, text, next, test = "empty") {
  return h(
    "div",
    { class: "panel", "data-test": test },
    h("p", { class: "panel-title" }, status("unknown", title)),
    h("p", { class: "note" }, prose(text)),
    next ? command(next) : null,
  );
}

/** The table behind a chart, built only while it is open. */
export function behind(ctx, name, build, summary = "The numbers") {
  const toggle = (event) => {
    const open = event.currentTarget.open;
    if (open === ctx.opened.has(name)) return;
    if (open) ctx.opened.add(name);
    else ctx.opened.delete(name);
    ctx.redraw();
  };
  return h(
    "details",
    { class: "behind", key: `behind-${name}`, "data-test": `table-${name}`, open: ctx.opened.has(name), on: { toggle } },
    h("summary", null, summary),
    ctx.opened.has(name) ? build() : null,
  );
}

