// Versions: is the model getting better? The task's metric over all versions; then the versions, newest first.

import { h } from "../dom.js";
import { cost, count, decimal, duration, known, metric, words } from "../format.js";
import { bestChip, change, curveCard, isBest, titled } from "../quality.js";
import { Resource } from "../resource.js";
import { card, command, emptyPanel, hash, pager, shownOf, table, time } from "../widgets.js";

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
      curve.view((data) => allVersions(ctx, page, data)),
      card("All versions", { id: "versions", note: "newest first" }, list.view((data) => versions(ctx, data, before), 12)),
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
    versionsTable(ctx, data),
    data.commands?.best ? [h("p", { class: "note" }, "The best version’s model as a file:"), command(data.commands.best, "best-command")] : null,
  ];
}

function versionsTable(ctx, data) {
  const { versions: rows, metric: judge, currency } = data;
  const others = (data.metrics ?? []).filter((name) => name !== judge?.name);
  return table({
    caption: "Versions, newest first",
    test: "versions",
    rows,
    key: (one) => one.version,
    current: (one) => isBest(judge, one.version),
    columns: [
      { label: "Version", kind: "number", head: true, cell: (one) => [bestChip(judge, one.version), " ", h("a", { href: ctx.link(`/versions/${one.version}`), class: "strong" }, count(one.version))] },
      { label: "Made", kind: "text", cell: (one) => time(one.created_at_ms) },
      { label: titled(judge?.name ?? "metric"), kind: "number", note: judge ? `${judge.better} is better` : null, cell: (one) => metric(judge?.name, one.metric) },
      { label: "Change", kind: "number", note: "From the version before", cell: (one) => change(judge, one.change) },
      ...others.map((name) => ({ label: titled(name), kind: "number", cell: (one) => metric(name, one.metrics?.[name]) })),
      { label: "Accepted", kind: "number", cell: (one) => count(one.accepted) },
      { label: "Refused", kind: "number", cell: (one) => count(one.refused) },
      { label: "Staleness", kind: "number", note: "Mean and greatest, in versions", cell: (one) => (known(one.staleness_mean) ? `${decimal(one.staleness_mean, 1)} (max ${count(one.staleness_max)})` : "–") },
      { label: "Took", kind: "number", cell: (one) => duration(one.seconds) },
      { label: currency ? `Cost, ${currency}` : "Cost", kind: "number", cell: (one) => cost(one.cost) },
      { label: "Because", kind: "text", cell: (one) => words(one.reason) },
      { label: "Model", kind: "text", cell: (one) => hash(one.model_sha256, { length: 10 }) },
    ],
  });
}

function allVersions(ctx, page, data) {
  const points = data.points;
  const choose = (event) => {
    page.metric = event.currentTarget.value;
    ctx.redraw();
  };
  const thinned = data.every > 1 ? `, every ${count(data.every)}th, the best and the newest` : "";
  return curveCard(ctx, {
    id: "curve",
    page,
    names: data.metrics ?? [],
    judge: data.metric,
    points,
    window: points.length ? `versions ${count(points[0].version)} to ${count(points.at(-1).version)}: ${shownOf(data.shown, data.of, "evaluated versions")}${thinned}` : null,
    actions: (name) => [
      h("label", { class: "note", for: "metric" }, "Metric"),
      h("select", { id: "metric", value: name, on: { change: choose } }, data.metrics.map((one) => h("option", { value: one, key: one }, one))),
    ],
  });
}
