// Version N: what went into this one? Its tiles of the logs, its contributors, its parent, and whether an audit agrees.

import { AuditControl } from "../audits.js";
import { h } from "../dom.js";
import { cost, count, decimal, duration, known, metric, NOT_KNOWN, place, slot, things, words } from "../format.js";
import { bestChip, change, titled } from "../quality.js";
import { Resource } from "../resource.js";
import { behind, card, command, emptyPanel, hash, mending, prose, shareBar, shownOf, skeleton, stat, stats, status, table, time, told } from "../widgets.js";
import { stalenessTable } from "./now.js";

const SHADES = 4;
/** Tiles drawn in one strip; the table behind has all. */
const TILES_DRAWN_MAX = 400;
const MANIFEST_CHARACTERS_MAX = 200_000;

export function open(ctx) {
  const version = Number(ctx.params[0]);
  const control = new AuditControl(ctx, version);
  const detail = new Resource(ctx, "detail", async (signal) => {
    const data = await ctx.api.read(`versions/${version}`, {}, signal);
    control.heard(data.audit);
    return data;
  }).once();
  const manifest = new Resource(ctx, "manifest", (signal) => ctx.api.text(`versions/${version}/manifest`, signal));
  const people = contributors(ctx, version);
  if (version > 0) people.resource.once();
  return {
    title: `Version ${version}`,
    audit: (run) => control.heard(run),
    view: () => [head(ctx, version), detail.view((data) => body(ctx, { version, data, control, manifest, people }), 10)],
  };
}

function head(ctx, version) {
  const newest = ctx.snapshot?.head?.version;
  return h(
    "div",
    { class: "page-head", key: "head" },
    h("h1", null, `Version ${count(version)}`),
    h(
      "nav",
      { class: "links", "aria-label": "Neighbours" },
      step("Older", version > 0 ? ctx.link(`/versions/${version - 1}`) : null),
      step("Newer", known(newest) && version < newest ? ctx.link(`/versions/${version + 1}`) : null),
    ),
  );
}

function step(label, href) {
  return href ? h("a", { class: "button", href, key: label }, label) : h("span", { class: "button off", key: `${label}-off`, "aria-disabled": "true" }, label);
}

function body(ctx, page) {
  const { version, data, control } = page;
  return [
    facts(ctx, data),
    data.problems?.length ? disagreement(data) : null,
    h(
      "div",
      { class: "grid", key: "upper" },
      card("Audit", { id: "audit-card", note: version > 0 ? "can it be proved?" : null }, version > 0 ? control.view(data.commands?.audit) : h("p", { class: "note" }, "Version 0 is the beginning: its hash is what an auditor has to trust beforehand. Every later version is computed from it and the logs.")),
      card("Where it comes from", { id: "chain" }, chain(ctx, version, data)),
    ),
    version > 0 ? tiles(ctx, data) : null,
    version > 0
      ? h("div", { class: "grid", key: "middle" }, staleness(data), byRegion(data))
      : null,
    version > 0 ? people(ctx, page) : null,
    manifestCard(ctx, page),
  ];
}

function facts(ctx, data) {
  const judge = data.metric;
  const others = Object.entries(data.metrics ?? {}).filter(([name]) => name !== judge?.name);
  return stats(
    stat("Made", time(data.created_at_ms), data.reason === "genesis" ? "genesis" : `because: ${words(data.reason)}`),
    stat(titled(judge?.name ?? "metric"), metric(judge?.name, data.metrics?.[judge?.name]), data.evaluation ? judgement(judge, data, others) : "not evaluated", { id: "stat-metric" }),
    stat("Accepted", count(data.accepted), `${count(data.refused)} refused${data.canaries ? `, ${count(data.canaries)} of a canary left out` : ""}${data.dropped ? `, ${count(data.dropped)} dropped: too late` : ""}`),
    stat("Weight", decimal(data.weight_total, 3), "sum over its updates"),
    stat("Verdicts", agreement(data), data.staleness_of ? `${shownOf(data.staleness_of.shown, data.staleness_of.of, "records")}` : null),
    stat("Staleness", known(data.staleness?.mean) ? decimal(data.staleness.mean, 2) : NOT_KNOWN, known(data.staleness?.max) ? `at most ${count(data.staleness.max)} versions` : null),
    known(data.cost) ? stat("Cost", cost(data.cost, data.currency), known(data.seconds) ? `took ${duration(data.seconds)}` : null) : null,
  );
}

/** Whether it is the best, what it changed, and the task's other numbers. */
function judgement(judge, data, others) {
  return [bestChip(judge, data.version), " ", change(judge, data.change), " from the version before", others.map(([name, value]) => [h("br"), `${name} ${metric(name, value)}`])];
}

function agreement({ consistent, problems }) {
  if (problems?.length || consistent === false) return status("bad", "disagree");
  return consistent ? status("ok", "agree") : status("unknown", "not all read");
}

function disagreement(data) {
  return h(
    "div",
    { class: "panel bad", key: "problems", "data-test": "inconsistent" },
    h("p", { class: "panel-title" }, status("bad", "manifest and verdicts do not agree")),
    h("ul", null, (data.problems ?? []).map((text) => h("li", null, told(text)))),
    mending({ commands: [data.commands?.refold].filter(Boolean), runbook: { title: "An audit differs", page: "/docs/runbooks/audit-mismatch.md#what-to-do" }, errors: [{ id: "FLV-6207", page: "/docs/errors/FLV-6207.md" }] }),
  );
}

/** The chain's last links, and the hashes that make it one. */
function chain(ctx, version, data) {
  const row = (name, value) => [h("dt", null, name), h("dd", null, value)];
  const parent = version > 0 ? hash(data.parent_sha256, { href: ctx.link(`/versions/${version - 1}`), length: 20 }) : h("span", { class: "faint" }, "none: the first");
  return [
    h(
      "ol",
      { class: "chain", "aria-label": "The chain of versions" },
      [version - 2, version - 1].filter((one) => one >= 0).map((one) => h("li", null, h("a", { href: ctx.link(`/versions/${one}`) }, count(one)))),
      h("li", { "aria-current": "true" }, h("span", null, count(version))),
      known(ctx.snapshot?.head?.version) && version < ctx.snapshot.head.version ? h("li", null, h("a", { href: ctx.link(`/versions/${version + 1}`) }, count(version + 1))) : null,
    ),
    h("dl", { class: "pairs", id: "hashes" }, row("Parent manifest", h("span", { id: "parent-hash" }, parent)), row("This manifest", hash(data.manifest_sha256, { length: 20 })), row("Model", hash(data.model_sha256, { length: 20 })), row("Policy", hash(data.policy_sha256, { length: 20 }))),
    data.commands?.inspect ? command(data.commands.inspect, "inspect-command") : null,
    h("p", { class: "note" }, "Its model as a file:"),
    command(data.commands?.model, "model-command"),
  ];
}

/** One row a partition, one block a window, all rows on one scale of records. */
function tiles(ctx, data) {
  const rows = new Map();
  for (const tile of data.tiles) {
    const name = slot(tile.region, tile.partition);
    rows.set(name, [...(rows.get(name) ?? []), tile]);
  }
  const drawn = data.tiles.slice(0, TILES_DRAWN_MAX);
  const spans = [...rows.values()].map((all) => all.at(-1).next_offset - all[0].first_offset);
  const widest = Math.max(1, ...spans);
  const records = data.tiles.reduce((sum, tile) => sum + tile.next_offset - tile.first_offset, 0);
  return card(
    "Its tiles of the logs",
    { id: "tiles", note: `${things(data.tiles.length, "windows")} of ${things(rows.size, "partitions")}, ${things(records, "records")}; one scale for all rows` },
    data.tiles.length === 0
      ? emptyPanel("no windows", "This version names no input.", data.commands?.lineage)
      : h(
          "div",
          { class: "strips", role: "img", "aria-label": `${count(data.tiles.length)} windows of ${count(rows.size)} partitions. The table below has them.`, id: "strips" },
          [...rows].map(([name, all]) => strip(name, all.filter((tile) => drawn.includes(tile)), all, widest)),
        ),
    data.tiles.length > TILES_DRAWN_MAX ? h("p", { class: "note" }, `Drawn: ${shownOf(TILES_DRAWN_MAX, data.tiles.length, "windows")}.`) : null,
    behind(ctx, "tiles", () => tilesTable(ctx, data.tiles), `The table of ${things(data.tiles.length, "windows")}`),
    data.commands?.lineage ? command(data.commands.lineage, "lineage-command") : null,
  );
}

function strip(name, drawn, all, widest) {
  const first = all[0].first_offset;
  const at = (offset) => `${((100 * (offset - first)) / widest).toFixed(3)}%`;
  return h(
    "div",
    { class: "strip-row", key: name },
    h("span", { class: "strip-name" }, name),
    h("span", { class: "strip-from" }, count(first)),
    h(
      "span",
      { class: "strip-line" },
      drawn.map((tile) =>
        h("span", {
          class: `tile shade-${tile.sequence % SHADES}`,
          key: tile.sequence,
          title: `${name}@${tile.first_offset}..${tile.next_offset}: window ${tile.sequence}, ${tile.next_offset - tile.first_offset} records, ${tile.accepted} accepted`,
          style: { "--from": at(tile.first_offset), "--size": at(first + tile.next_offset - tile.first_offset) },
        }),
      ),
    ),
    h("span", { class: "strip-to" }, count(all.at(-1).next_offset)),
  );
}

/** How late a window came, and what that leaves of it; null where its manifest does not say. */
function lateness(one) {
  if (one.late_versions === null) return "not said";
  if (one.late_versions === 0) return "in time";
  const late = things(one.late_versions, "versions");
  return one.dropped ? `${late}: dropped` : `${late}: ${decimal(one.lateness_weight)} of its weight`;
}

function tilesTable(ctx, rows) {
  return table({
    caption: "Windows that went into this version",
    test: "tiles",
    tall: true,
    rows,
    key: (one) => `${slot(one.region, one.partition)} ${one.sequence}`,
    columns: [
      { label: "Partition", kind: "text", head: true, cell: (one) => slot(one.region, one.partition) },
      { label: "Window", kind: "number", cell: (one) => count(one.sequence) },
      { label: "First offset", kind: "number", cell: (one) => h("a", { href: ctx.link("/record", { region: one.region, partition: one.partition, offset: one.first_offset }) }, count(one.first_offset)) },
      { label: "Next offset", kind: "number", cell: (one) => count(one.next_offset) },
      { label: "Records", kind: "number", cell: (one) => count(one.next_offset - one.first_offset) },
      { label: "Accepted", kind: "number", cell: (one) => count(one.accepted) },
      { label: "Late", kind: "text", cell: lateness },
      { label: "Sums", kind: "text", cell: (one) => hash(one.sha256) },
    ],
  });
}

function staleness(data) {
  const counts = data.staleness?.counts;
  const of = data.staleness_of;
  const total = counts?.reduce((sum, one) => sum + one.count, 0);
  return card(
    "Staleness",
    { id: "version-staleness", note: of ? `in versions; from the verdicts: ${shownOf(of.shown, of.of, "records")}` : "in versions" },
    counts?.length ? stalenessTable(counts, total) : h("p", { class: "note" }, "Its verdicts could not be read, or it accepted nothing."),
  );
}

function byRegion(data) {
  return card(
    "By region",
    { id: "version-regions", note: data.regions?.some((one) => one.accepted === null) ? "not known: one page does not reach all its verdicts" : null },
    table({
      caption: "By region",
      rows: data.regions ?? [],
      key: (one) => one.region,
      columns: [
        { label: "Region", kind: "text", head: true, cell: (one) => one.region },
        { label: "Accepted", kind: "number", cell: (one) => count(one.accepted) },
        { label: "Refused", kind: "number", cell: (one) => count(one.refused) },
        { label: "Weight", kind: "number", cell: (one) => decimal(one.weight_total, 3) },
        { label: "Of the weight", kind: "wide-bar", cell: (one) => shareBar(one.weight_total, known(one.weight_total) ? data.weight_total : 0, 1) },
      ],
    }),
  );
}

/** Pages forward by the cursor; the cursors passed lead back. */
function contributors(ctx, version) {
  const state = { cursors: [null], resource: null };
  state.resource = new Resource(ctx, "contributors", (signal) => ctx.api.read(`versions/${version}/contributors`, { after: state.cursors.at(-1) }, signal));
  return state;
}

function people(ctx, { version, people: state, data: detail }) {
  const move = (cursors) => () => {
    state.cursors = cursors;
    state.resource.load();
  };
  const { resource, cursors } = state;
  return card(
    "Contributors",
    { id: "contributors", note: "the updates that count in it, by region, partition and offset" },
    resource.view((data) => [
      h(
        "div",
        { class: "pager", "data-test": "contributors-pager" },
        h("span", { class: "note" }, `page ${count(cursors.length)}, ${shownOf(data.shown, data.of ?? detail.accepted, "updates")}`),
        h(
          "span",
          { class: "links" },
          h("button", { type: "button", disabled: cursors.length === 1, on: { click: move(cursors.slice(0, -1)) } }, "Back"),
          h("button", { type: "button", id: "contributors-next", disabled: data.next === null || data.next === undefined, on: { click: move([...cursors, data.next]) } }, "Next"),
        ),
      ),
      table({
        caption: `Contributors of version ${version}`,
        test: "contributors",
        tall: data.contributors.length > 15,
        rows: data.contributors,
        key: (one) => place(one.region, one.partition, one.offset),
        empty: "no update counts in it",
        columns: [
          { label: "Record", kind: "text", head: true, cell: (one) => h("a", { href: ctx.link("/record", { region: one.region, partition: one.partition, offset: one.offset }) }, place(one.region, one.partition, one.offset)) },
          { label: "Device", kind: "text id", cell: (one) => h("a", { href: ctx.link(`/fleet/devices/${encodeURIComponent(one.device_id)}`, { region: one.region }), title: one.device_id }, one.device_id) },
          { label: "Base", kind: "number", cell: (one) => h("a", { href: ctx.link(`/versions/${one.base_version}`) }, count(one.base_version)) },
          { label: "Staleness", kind: "number", cell: (one) => count(one.staleness) },
          { label: "Weight", kind: "number", cell: (one) => decimal(one.weight, 4) },
          { label: "Clip", kind: "number", note: "The factor its norm was clipped by", cell: (one) => decimal(one.clip, 4) },
          { label: "Factor", kind: "number", note: "By which its delta stands in the version’s mean delta: its weight and clip, over what the version divides by", cell: (one) => decimal(one.share, 4) },
        ],
      }),
    ]),
  );
}

/** The bytes that were signed for, laid out; what is copied or hashed is the original. */
function manifestCard(ctx, { manifest, data }) {
  return card(
    "Manifest",
    { id: "manifest", note: prose("canonical JSON, as it lies in the store; its SHA-256 stands in every barrier") },
    behind(
      ctx,
      "manifest",
      () => {
        if (manifest.data === null && !manifest.problem && !manifest.loading) manifest.load();
        return manifest.data === null && !manifest.problem ? skeleton(4) : manifest.view((text) => h("pre", { tabindex: 0, id: "manifest-text", "aria-label": "Manifest" }, h("code", null, laidOut(text))));
      },
      "Show it, laid out",
    ),
    h("p", null, h("a", { href: `/api/${ctx.api.root}/versions/${data.version}/manifest`, download: `manifest-${data.version}.json` }, "Download its bytes")),
  );
}

function laidOut(text) {
  let shown = text;
  try {
    shown = JSON.stringify(JSON.parse(text), null, 2);
  } catch {
    // Not JSON: then as it is.
  }
  return shown.length > MANIFEST_CHARACTERS_MAX ? `${shown.slice(0, MANIFEST_CHARACTERS_MAX)}\n… ${shownOf(MANIFEST_CHARACTERS_MAX, shown.length, "characters")}` : shown;
}
