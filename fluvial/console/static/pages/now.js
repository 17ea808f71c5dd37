// Now: is it all right? One health word, the worst part's, with its reason; then the figures behind it.

import { chartCard } from "../charts.js";
import { h } from "../dom.js";
import { cost, count, decimal, duration, known, metric, NOT_KNOWN, percent, rate, things } from "../format.js";
import { change, curveCard, titled } from "../quality.js";
import { card, command, emptyPanel, icon, judged, lagLevel, mending, meter, outcomeLevel, shareBar, skeleton, stat, stats, status, table, time, told, trend } from "../widgets.js";

const STATES = { ready: ["ok", "ready"], starting: ["busy", "starting"], draining: ["busy", "draining"], gone: ["bad", "gone"] };

export function open(ctx) {
  const page = { metric: null };
  return { title: "Now", view: () => view(ctx, page) };
}

function view(ctx, page) {
  const now = ctx.snapshot;
  if (!now) return [h("h1", { class: "unseen" }, "Now"), skeleton(8, "Waiting for the first snapshot")];
  const levels = Object.values(now.sources ?? {}).map((one) => one.level);
  const down = now.head === null && levels.includes("bad");
  const asking = now.head === null && !down && levels.includes("unknown");
  const panel = () => emptyPanel("the stack is down", "Without Kafka and the store there is nothing to show. This page comes alive by itself when they are back. `fluvial doctor` says what is missing.", ctx.fluvial("up"), "down");
  return [
    health(ctx, now),
    down ? panel() : asking ? skeleton(8, "Asking Kafka and the store for the first time") : figures(ctx, now),
    now.head && !down ? h("div", { class: "grid", key: "charts" }, learning(ctx, page, now), traffic(ctx, now)) : null,
    now.regions?.length ? regions(ctx, now) : null,
    h("div", { class: "grid", key: "lower" }, now.staleness?.records ? staleness(now.staleness) : null, processes(ctx, now)),
  ];
}

/** The part that has the last word, in one glance; the others beneath. */
function health(ctx, now) {
  const { level, word, part, reason, parts } = judged(now.health, ctx.late);
  const worst = parts.find((one) => one.name === part);
  const next = level === "ok" || ctx.late !== null ? null : here(ctx, worst?.page);
  const others = parts.filter((one) => one.name !== part && (one.level === "bad" || one.level === "warn") && one.mend);
  return h(
    "section",
    { class: `health ${level}`, id: "health", key: "health", "data-level": level, "aria-labelledby": "health-word" },
    h("div", { class: "health-mark" }, icon(level)),
    h(
      "div",
      { class: "health-text" },
      h("h1", { id: "health-word" }, word),
      h("p", { id: "health-reason" }, h("strong", null, part), ": ", told(reason)),
    ),
    next ? h("a", { class: "button", href: next, id: "health-next" }, `Look at ${pageName(worst.page)}`) : null,
    mending(worst?.mend, "health-mend"),
    others.length ? h("ul", { class: "others", "aria-label": "Also not well" }, others.map((one) => h("li", { key: one.name }, status(one.level, `${one.name} ${one.word}`), h("span", { class: "note" }, " ", told(one.reason)), mending(butFor(one.mend, worst?.mend))))) : null,
    h(
      "ul",
      { class: "parts", "aria-label": "Parts" },
      parts.map((one) => {
        const inside = [icon(one.level), h("span", { class: "part-name" }, one.name), h("span", { class: "part-word" }, one.word)];
        const href = here(ctx, one.page);
        return h("li", { key: one.name, class: `part ${one.level}`, title: one.reason }, href ? h("a", { href }, inside) : h("span", null, inside));
      }),
    ),
  );
}

/** A mend without the commands that stand there already. */
function butFor(mend, above) {
  return { ...mend, commands: mend.commands.filter((one) => !above?.commands.includes(one)) };
}

/** A page that the console names, as an address of the same task; Now itself is no step. */
function here(ctx, page) {
  const path = String(page ?? "").replace(/^#/, "");
  return path && path !== "/" && path.startsWith("/") ? ctx.link(path) : null;
}

function pageName(page) {
  const name = page.replace(/^#\//, "").split(/[/?]/)[0];
  return name.charAt(0).toUpperCase() + name.slice(1);
}

function figures(ctx, now) {
  const { head, rates } = now;
  if (!head) return emptyPanel("no version yet", "The task is made, and its first version has not been published. Workers and the merger make it.", ctx.fluvial(`worker --task ${now.task} --region ${now.regions?.[0]?.region ?? "local"}`), "no-version");
  const made = known(head.age_seconds) ? now.at_ms - head.age_seconds * 1000 : null;
  const nothing = head.version === 0 ? "the initial model" : null;
  return h(
    "div",
    { key: "figures", id: "figures" },
    stats(
      stat("Version", h("a", { href: ctx.link(`/versions/${head.version}`), id: "head-version" }, count(head.version)), time(made), { id: "stat-version" }),
      stat(titled(now.metric?.name ?? "metric"), metric(now.metric?.name, head.metric), reached(now, head) ?? nothing ?? "not evaluated yet", { id: "stat-metric" }),
      stat("Updates", rate(rates?.updates_per_second), rates ? `over ${rates.seconds} s` : null, { id: "stat-updates" }),
      stat("Accepted", percent(rates?.accept_ratio), rates ? `over ${rates.seconds} s` : null, { id: "stat-accepted" }),
      proven(ctx, now),
      stat("Cost per version", cost(now.cost?.per_version, now.cost?.currency), spent(now), { id: "stat-cost" }),
    ),
  );
}

/** What the newest version changed, and the loss where that is another number. */
function reached(now, head) {
  if (!head.evaluated || !now.metric) return null;
  const loss = now.metric.name !== "loss" && known(head.loss) ? `loss ${metric("loss", head.loss)}` : null;
  const before = known(head.change) ? change(now.metric, head.change) : null;
  return h("span", null, before, before && loss ? ", " : null, loss, !before && !loss ? `${now.metric.better} is better` : null);
}

/** What all of it cost, and what a point of the metric did. */
function spent({ cost: spending, metric: judge }) {
  if (!spending?.versions) return "no price known";
  const { currency, per_point: point } = spending;
  const unit = point?.point === 1 ? `1 of ${judge?.name}` : `point of ${judge?.name}`;
  return h("span", null, `mean of ${count(spending.versions)}; ${cost(spending.total, currency)} in all`, point ? `; ${cost(point.cost, currency)} for each ${unit} gained` : null);
}

/** What an audit has shown: of this console, or of a shell on this machine. */
function proven(ctx, now) {
  const proof = now.proven;
  const link = (text) => h("a", { href: ctx.link("/audit") }, text);
  return stat("Last proven", proof ? link(`version ${count(proof.version)}`) : link("not yet"), proof ? time(proof.at_ms) : "by an audit of the signed logs", { id: "stat-proven" });
}

function learning(ctx, page, now) {
  const points = now.curve ?? [];
  const choose = (next) => () => {
    page.metric = next;
    ctx.redraw();
  };
  const names = now.metrics ?? [];
  return curveCard(ctx, {
    id: "learning",
    page,
    names,
    judge: now.metric,
    points,
    window: points.length ? `versions ${count(points[0].version)} to ${count(points.at(-1).version)}, ${count(points.length)} of ${count(now.curve_of)}` : null,
    actions: (name) =>
      h(
        "div",
        { class: "segments", role: "group", "aria-label": "Metric" },
        names.map((one) => h("button", { type: "button", key: one, "aria-pressed": String(one === name), on: { click: choose(one) } }, one)),
      ),
  });
}

function traffic(ctx, now) {
  const series = now.series ?? { accepted: [], refused: [], step_seconds: 2, seconds: 120 };
  const length = series.accepted.length;
  const back = series.accepted.map((_, index) => -(length - 1 - index) * series.step_seconds);
  return chartCard(ctx, {
    id: "traffic",
    title: "Updates per second",
    window: `the last ${duration(series.seconds)}, means over ${duration(series.step_seconds)}`,
    spec: {
      id: "traffic",
      x: back,
      xName: "",
      xFormat: (x) => (x === 0 ? "now" : `${decimal(x, 0)} s`),
      floor: 0,
      series: [
        { label: "accepted", values: series.accepted, color: "--series-1", fill: "--series-1-fill" },
        { label: "refused", values: series.refused, color: "--series-2", dash: [6, 4] },
      ],
      format: (value) => decimal(value, 1),
    },
    build: () =>
      table({
        caption: "Accepted and refused updates per second",
        tall: true,
        rows: back.map((_, index) => length - 1 - index),
        key: (index) => index,
        columns: [
          { label: "Until", kind: "number", head: true, cell: (index) => (back[index] === 0 ? "now" : `${duration(-back[index])} ago`) },
          { label: "Accepted/s", kind: "number", cell: (index) => decimal(series.accepted[index], 2) },
          { label: "Refused/s", kind: "number", cell: (index) => decimal(series.refused[index], 2) },
        ],
      }),
  });
}

function regions(ctx, now) {
  return card(
    "Regions",
    { id: "regions", note: "verdicts of what the console has followed" },
    table({
      caption: "Regions",
      test: "regions",
      stacks: true,
      rows: now.regions,
      key: (one) => one.region,
      columns: [
        { label: "Region", kind: "text", head: true, cell: (one) => h("a", { href: ctx.link("/flow", { region: one.region }) }, one.region) },
        { label: "Updates", kind: "number", cell: (one) => rate(one.updates_per_second) },
        { label: "Accepted", kind: "number", cell: (one) => count(one.accepted) },
        { label: "Refused", kind: "text", cell: (one) => refusals(ctx, one) },
        { label: "Window", kind: "text", cell: (one) => windowFill(one.window) },
        { label: "Lag", kind: "text", note: "How far the workers are behind the log", cell: (one) => lag(one) },
      ],
    }),
  );
}

/** The commonest reasons by name; the rest as a number, on the page that has them all. */
function refusals(ctx, one) {
  const { accepted, refused } = one;
  if (!refused) return h("span", { class: "faint" }, "none");
  const reasons = Object.entries(one.verdicts).filter(([name, value]) => outcomeLevel(name) === "bad" && value);
  const [name, most] = reasons.sort((left, right) => right[1] - left[1])[0];
  return [
    h("a", { href: ctx.link("/refused", { region: one.region }) }, `${count(refused)} (${percent(refused / (accepted + refused))})`),
    h("span", { class: "note" }, ` mostly ${name.replaceAll("_", " ")}, ${count(most)}`),
  ];
}

function windowFill(window) {
  if (!window) return NOT_KNOWN;
  const text = window.updates_max ? `${count(window.records)} of ${count(window.updates_max)}` : count(window.records);
  return [meter(window.records, window.updates_max, text), window.records && known(window.oldest_seconds) ? h("span", { class: "note" }, ` oldest ${duration(window.oldest_seconds)}`) : null];
}

export function lag(one) {
  if (!known(one.lag_seconds) && !known(one.lag_records)) return status("unknown", "not known");
  if (one.lag_records === 0) return h("span", null, "none");
  return [h("span", { class: "lag" }, duration(one.lag_seconds)), " ", trend(one.trend, lagLevel(one) !== "ok"), h("span", { class: "note" }, ` ${things(one.lag_records, "records")}`)];
}

function staleness({ records, counts }) {
  return card(
    "Staleness of accepted updates",
    { id: "staleness", note: `the newest ${count(records)}; in versions behind the head` },
    stalenessTable(counts, records),
  );
}

export function stalenessTable(counts, records) {
  return table({
    caption: "Staleness",
    rows: counts,
    key: (one) => one.staleness,
    tall: counts.length > 12,
    columns: [
      { label: "Versions", kind: "number", head: true, cell: (one) => count(one.staleness) },
      { label: "Updates", kind: "number", cell: (one) => count(one.count) },
      { label: "Of the updates", kind: "wide-bar", cell: (one) => shareBar(one.count, records) },
    ],
  });
}

function processes(ctx, now) {
  const rows = now.processes ?? [];
  return card(
    "Processes",
    { id: "processes", note: rows.length ? `${count(rows.length)} known to this console` : null },
    rows.length
      ? table({
          caption: "Processes",
          test: "processes",
          stacks: true,
          tall: rows.length > 12,
          rows,
          key: (one) => `${one.role} ${one.name}`,
          columns: [
            { label: "Process", kind: "text", head: true, cell: (one) => one.name },
            { label: "State", kind: "text state", cell: (one) => [status(...(STATES[one.state] ?? ["unknown", one.state])), one.reason ? h("span", { class: "note" }, ` ${one.reason}`) : null] },
            { label: "Role", kind: "text", cell: (one) => (one.region ? `${one.role}, ${one.region}` : one.role) },
            { label: "Port", kind: "number", cell: (one) => one.port ?? NOT_KNOWN },
          ],
        })
      : [h("p", { class: "note" }, "None runs on this machine, or none has told where it is. Those elsewhere are seen by their groups on Flow."), command(ctx.fluvial(`status --task ${now.task}`))],
  );
}
