// One device's timeline: its partition read back from the end, a page at a time.

import { h } from "../dom.js";
import { count, known, slot } from "../format.js";
import { Resource } from "../resource.js";
import { recordsTable } from "../records.js";
import { before as backIn } from "../trails.js";
import { card, emptyPanel, icon, outcomeLevel, pager, stat, stats, time } from "../widgets.js";

export function open(ctx) {
  const id = ctx.params[0];
  const { region = "", before = "" } = ctx.query;
  const device = new Resource(ctx, `device ${id}`, (signal) => ctx.api.read(`fleet/devices/${encodeURIComponent(id)}`, { region, before }, signal)).once();
  const back = backIn(`device ${ctx.task} ${id} ${region}`, before);
  return {
    title: `Device ${id}`,
    view: () => [
      h("nav", { class: "crumbs", "aria-label": "Where this is", key: "crumbs" }, h("a", { href: ctx.link("/fleet") }, "Fleet"), h("span", { "aria-hidden": "true" }, "/"), "Device"),
      h("div", { class: "page-head", key: "head" }, h("h1", { class: "id", id: "device" }, id)),
      device.view((data) => body(ctx, data, { id, region, before, back }), 8),
    ],
  };
}

function body(ctx, data, { id, region, before, back }) {
  const home = slot(data.region ?? region, data.partition);
  const accepted = data.records.filter((one) => one.outcome === "accepted").length;
  const refused = data.records.filter((one) => outcomeLevel(one.outcome) === "bad").length;
  const searched = data.searched ? `${home}@${data.searched.first}..${data.searched.end}` : home;
  const path = `/fleet/devices/${encodeURIComponent(id)}`;
  const pages = pager(`${count(data.shown)} of its records in ${searched}`, [
    ["Newest", before ? ctx.link(path, { region }) : null],
    ["Back", back === null ? null : ctx.link(path, { region, before: back })],
    ["Older", data.next === null || data.next === undefined ? null : ctx.link(path, { region, before: data.next })],
  ]);
  return [
    stats(
      stat("Partition", home, "follows from its id"),
      stat("Accepted", count(accepted), "on this page"),
      stat("Refused", count(refused), "on this page"),
      stat("Newest here", time(data.records[0]?.timestamp_ms)),
    ),
    card(
      "Timeline",
      { id: "timeline", note: "newest first" },
      pages,
      data.records.length
        ? [strip(data.records), recordsTable(ctx, { caption: `Records of the device, newest first`, records: data.records, test: "timeline", device: false })]
        : emptyPanel("none here", `It has no record in ${searched}.${known(data.next) || data.next ? " Older pages may have some." : ""}`, null),
    ),
  ];
}

/** Oldest on the left: one mark a record, by shape; the table beneath has them all. */
function strip(records) {
  return h(
    "div",
    { class: "marks", role: "img", "aria-label": `${count(records.length)} verdicts, oldest first; the table below has them` },
    [...records].reverse().map((one) => h("span", { class: `mark status ${outcomeLevel(one.outcome)}`, key: `${one.offset}`, title: `@${one.offset}: ${one.outcome ?? "no verdict yet"}` }, icon(outcomeLevel(one.outcome)))),
  );
}
