// Versions: is the model getting better? The table first, newest first; then a metric against the version.

import { chartCard } from "../charts.js";
import { h } from "../dom.js";
import { cost, count, decimal, duration, known, metric, words } from "../format.js";
import { Resource } from "../resource.js";
import { card, emptyPanel, hash, pager, shownOf, table, time } from "../widgets.js";

const PAGE = 50;
const POINTS = 300;
const AGAIN_MS = 2000;

export function open(ctx) {
  const before = ctx.query.before ?? null;
  const list = new Resource(ctx, "list", (signal) => ctx.api.read("versions", { before, limit: PAGE }, signal)).once();
  const curve = new Resource(ctx, "curve", (signal) => ctx.api.read("curve", { points: POINTS }, signal)).once();
  const page = { metric: ctx.query.metric ?? null, readMs: performance.now() };
  return {
    title: "Versions",
    now(snapshot) {
      const behind = list.data && snapshot.head && snapshot.head.version !== list.data.head;
      if (!behind || performance.now() - page.readMs < AGAIN_MS || document.hidden) return;
      page.readMs = performance.now();
      // An older page stays what it was: versions never change.
      if (before === null) list.load();
      curve.load();
    },
    view: () => [
      h("div", { class: "page-head", key: "head" }, h("h1", null, "Versions"), h("p", { class: "note" }, "Each is one committed step of the model. A version never changes.")),
      card("All versions", { id: "versions", note: "newest first" }, list.view((data) => versions(ctx, data, before), 12)),
      curve.view((data) => curveCard(ctx, page, data)),
    ],
  };
}

function versions(ctx, data, before) {
  const rows = data.versions;
  if (!rows.length) return emptyPanel("no version yet", "The first appears here when the merger commits it.", ctx.fluvial(`status --task ${ctx.task}`));
  const newest = rows[0].version;
  const newer = newest + 1 + PAGE;
  const links = [
    ["Newest", before === null ? null : ctx.link("/versions")],
    ["Newer", before === null || newest >= data.head ? null : ctx.link("/versions", newer > data.head + 1 ? {} : { before: newer })],
    ["Older", data.next === null || data.next === undefined ? null : ctx.link("/versions", { before: data.next })],
  ];
  return [
    pager(`${count(rows.at(-1).version)} to ${count(newest)}, ${shownOf(data.shown, data.of, "versions")}`, links),
    versionsTable(ctx, rows),
  ];
}

function versionsTable(ctx, rows) {
  return table({
    caption: "Versions, newest first",
    test: "versions",
    rows,
    key: (one) => one.version,
    columns: [
      { label: "Version", kind: "number", head: true, cell: (one) => h("a", { href: ctx.link(`/versions/${one.version}`), class: "strong" }, count(one.version)) },
      { label: "Made", kind: "text", cell: (one) => time(one.created_at_ms) },
      { label: "Accuracy", kind: "number", cell: (one) => metric("accuracy", one.accuracy) },
      { label: "Loss", kind: "number", cell: (one) => metric("loss", one.loss) },
      { label: "Accepted", kind: "number", cell: (one) => count(one.accepted) },
      { label: "Refused", kind: "number", cell: (one) => count(one.refused) },
      { label: "Staleness", kind: "number", note: "Mean and greatest, in versions", cell: (one) => (known(one.staleness_mean) ? `${decimal(one.staleness_mean, 1)} (max ${count(one.staleness_max)})` : "–") },
      { label: "Took", kind: "number", cell: (one) => duration(one.seconds) },
      { label: "Cost", kind: "number", cell: (one) => cost(one.cost) },
      { label: "Because", kind: "text", cell: (one) => words(one.reason) },
      { label: "Model", kind: "text", cell: (one) => hash(one.model_sha256, { length: 10 }) },
    ],
  });
}

function curveCard(ctx, page, data) {
  const names = data.metrics?.length ? data.metrics : ["accuracy"];
  const name = names.includes(page.metric) ? page.metric : names[0];
  const points = data.points;
  const change = (event) => {
    page.metric = event.currentTarget.value;
    ctx.redraw();
  };
  const label = words(name);
  return chartCard(ctx, {
    id: "curve",
    title: `${label.charAt(0).toUpperCase()}${label.slice(1)} against version`,
    window: points.length ? `versions ${count(points[0].version)} to ${count(points.at(-1).version)}: ${shownOf(data.shown, data.of, "evaluated versions")}${data.every > 1 ? `, every ${count(data.every)}th and the newest` : ""}` : "no version evaluated yet",
    actions: [
      h("label", { class: "note", for: "metric" }, "Metric"),
      h("select", { id: "metric", value: name, on: { change } }, names.map((one) => h("option", { value: one, key: one }, words(one)))),
    ],
    spec: {
      id: name,
      x: points.map((one) => one.version),
      xName: "version",
      xFormat: (x) => (Number.isInteger(x) ? count(x) : ""),
      series: [{ label, values: points.map((one) => one[name] ?? null), color: "--series-1", fill: "--series-1-fill" }],
      format: (value) => metric(name, value),
      pick: (index) => ctx.go(`/versions/${points[index].version}`),
    },
    build: points.length && (() =>
      table({
        caption: `${label} against version`,
        tall: true,
        rows: [...points].reverse(),
        key: (one) => one.version,
        columns: [
          { label: "Version", kind: "number", head: true, cell: (one) => h("a", { href: ctx.link(`/versions/${one.version}`) }, count(one.version)) },
          ...names.map((one) => ({ label: words(one), kind: "number", cell: (point) => metric(one, point[one]) })),
        ],
      })),
    empty: "No curve yet: it begins with the second evaluated version.",
  });
}
