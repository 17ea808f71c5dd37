// The task's own metric: its value, what a version changed in it, which version is best, and its curve.

import { chartCard } from "./charts.js";
import { h } from "./dom.js";
import { count, known, metric, NOT_KNOWN } from "./format.js";
import { table } from "./widgets.js";

export const isBest = (judge, version) => judge?.best?.version === version;

/** A metric's name as a heading begins. */
export const titled = (name) => `${name.charAt(0).toUpperCase()}${name.slice(1)}`;

/** What a version changed: an arrow up is better, one down is worse, whichever way the number went. */
export function change(judge, value) {
  if (!judge || !known(value)) return h("span", { class: "faint" }, NOT_KNOWN);
  const better = judge.better === "lower" ? value < 0 : value > 0;
  const text = `${value > 0 ? "+" : value < 0 ? "−" : "±"}${metric(judge.name, Math.abs(value))}`;
  if (value === 0) return h("span", { class: "faint" }, text);
  const word = better ? "better" : "worse";
  return h("span", { class: `change ${better ? "ok" : "bad"}`, title: `${word} than the version before` }, h("span", { "aria-hidden": "true" }, better ? "▲ " : "▽ "), text, h("span", { class: "unseen" }, ` ${word}`));
}

export function bestChip(judge, version) {
  return isBest(judge, version) ? h("span", { class: "chip best", title: `the best ${judge.name} of the versions that were followed` }, "best") : null;
}

/** A line on which way is better, and the best version. */
export function judgedBy(ctx, judge) {
  if (!judge) return null;
  const best = judge.best;
  return h(
    "span",
    null,
    `${judge.better} is better`,
    best ? [": the best is ", h("a", { href: ctx.link(`/versions/${best.version}`) }, `version ${count(best.version)}`), `, ${metric(judge.name, best.value)}`] : null,
  );
}

/**
 * The curve of one of `names`, with the best version marked in the metric's own. `page.metric` is the choice;
 * `window` says which versions, `actions` lets one choose.
 */
export function curveCard(ctx, { id, page, names, judge, points, window, actions }) {
  const name = names.includes(page.metric) ? page.metric : names[0] ?? judge?.name ?? "metric";
  const best = judge && judge.name === name && judge.best?.version > 0 ? points.findIndex((one) => one.version === judge.best.version) : -1;
  const marked = best < 0 ? [] : [{ label: `best: version ${count(judge.best.version)}`, values: points.map((one, index) => (index === best ? one[name] : null)), color: "--series-2", dots: true }];
  return chartCard(ctx, {
    id,
    title: `${titled(name)} by version`,
    window: points.length ? window : "no version evaluated yet",
    note: points.length ? judgedBy(ctx, judge) : null,
    actions: names.length > 1 ? actions(name) : null,
    spec: {
      id: `${name} ${marked.length}`,
      x: points.map((one) => one.version),
      xName: "version",
      xFormat: (x) => (Number.isInteger(x) ? count(x) : ""),
      series: [{ label: name, values: points.map((one) => one[name] ?? null), color: "--series-1", fill: "--series-1-fill" }, ...marked],
      format: (value) => metric(name, value),
      pick: (index) => ctx.go(`/versions/${points[index].version}`),
    },
    build: points.length && (() =>
      table({
        caption: `${names.map(titled).join(", ")} by version`,
        tall: true,
        rows: [...points].reverse(),
        key: (one) => one.version,
        columns: [
          { label: "Version", kind: "number", head: true, cell: (one) => [h("a", { href: ctx.link(`/versions/${one.version}`) }, count(one.version)), bestChip(judge, one.version)] },
          ...names.map((one) => ({ label: titled(one), kind: "number", cell: (point) => metric(one, point[one]) })),
        ],
      })),
    empty: "No curve yet: it begins with the second evaluated version.",
  });
}
