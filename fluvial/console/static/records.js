// A record's verdict in a row, and the addresses that lead to and from it.

import { h } from "./dom.js";
import { count, decimal, known, NOT_KNOWN, place } from "./format.js";
import { outcome, table, time } from "./widgets.js";

export function recordLink(ctx, one) {
  return ctx.link("/record", { region: one.region, partition: one.partition, offset: one.offset });
}

export function deviceLink(ctx, one) {
  return ctx.link(`/fleet/devices/${encodeURIComponent(one.device_id)}`, { region: one.region });
}

export function deviceCell(ctx, one) {
  return one.device_id ? h("a", { href: deviceLink(ctx, one), title: one.device_id }, one.device_id) : h("span", { class: "faint" }, NOT_KNOWN);
}

/** A number of a verdict; most refusals come before it was measured. */
export function measured(value, digits, unit = "") {
  return known(value) ? `${decimal(value, digits)}${unit}` : h("span", { class: "faint" }, "not measured");
}

/** Records newest first. `device`: whether the device is worth a column. */
export function recordsTable(ctx, { caption, records, test, device = true, empty }) {
  const columns = [
    { label: "Record", kind: "text", head: true, cell: (one) => h("a", { href: recordLink(ctx, one) }, place(one.region, one.partition, one.offset)) },
    { label: "Verdict", kind: "text", cell: (one) => outcome(one.outcome) },
    { label: "When", kind: "text", cell: (one) => time(one.timestamp_ms) },
    device ? { label: "Device", kind: "text id", cell: (one) => deviceCell(ctx, one) } : null,
    { label: "Base", kind: "number", note: "The version it trained on", cell: (one) => (known(one.base_version) ? h("a", { href: ctx.link(`/versions/${one.base_version}`) }, count(one.base_version)) : NOT_KNOWN) },
    { label: "Staleness", kind: "number", note: "In versions", cell: (one) => count(one.staleness) },
    { label: "Norm", kind: "number", note: "The length of its delta", cell: (one) => measured(one.norm, 3) },
    { label: "Detail", kind: "text detail", cell: (one) => h("span", { title: one.detail }, one.detail || "") },
  ].filter(Boolean);
  return table({ caption, test, stacks: true, columns, rows: records, key: (one) => place(one.region, one.partition, one.offset), empty });
}
