// Refused: what is refused, and why? Counts by reason, then records, down to one.

import { h } from "../dom.js";
import { count, known, things, words } from "../format.js";
import { Resource } from "../resource.js";
import { recordsTable } from "../records.js";
import { before as backIn } from "../trails.js";
import { card, emptyPanel, errorLink, pager, prose, shareBar, shownOf, status, table, time } from "../widgets.js";

const AGAIN_MS = 5000;

export function open(ctx) {
  const { region = "", reason = "", before = "" } = ctx.query;
  const list = new Resource(ctx, "refused", (signal) => ctx.api.read("refused", { region, reason, before }, signal));
  const back = backIn(`refused ${ctx.task} ${region} ${reason}`, before);
  // An older page is read once; the newest is kept current.
  if (before) list.once();
  else list.every(AGAIN_MS);
  return {
    title: "Refused",
    view: () => [
      h("div", { class: "page-head", key: "head" }, h("h1", null, "Refused"), h("p", { class: "note" }, "A refused update changes nothing but the counts. Every one has its verdict, and its reason.")),
      filters(ctx, { region, reason }),
      list.view((data) => body(ctx, data, { region, reason, before, back }), 10),
    ],
  };
}

function filters(ctx, { region, reason }) {
  const regions = [...new Set([region, ...(ctx.snapshot?.regions ?? []).map((one) => one.region)])].filter(Boolean);
  const change = (event) => ctx.go("/refused", { region: event.currentTarget.value, reason });
  return h(
    "div",
    { class: "filters", key: "filters" },
    h("label", { for: "region" }, "Region"),
    h("select", { id: "region", value: region, on: { change } }, h("option", { value: "", key: "" }, "all"), regions.map((one) => h("option", { value: one, key: one }, one))),
    reason ? h("span", { class: "label" }, "Reason") : null,
    reason ? h("a", { class: "chip", id: "clear-reason", href: ctx.link("/refused", { region }), "aria-label": `Reason ${words(reason)}: show all reasons` }, words(reason), h("span", { "aria-hidden": "true" }, " ✕")) : null,
  );
}

function body(ctx, data, { region, reason, before, back }) {
  const total = data.reasons.reduce((sum, one) => sum + one.count, 0);
  if (!total && !data.records.length) {
    return h(
      "div",
      { class: "panel", "data-test": "empty", key: "empty" },
      h("p", { class: "panel-title" }, status("ok", "nothing refused")),
      h("p", { class: "note" }, "Of what the console has followed", known(data.since_ms) ? [" since ", time(data.since_ms)] : null, region ? ` in ${region}` : null, "."),
    );
  }
  return [
    card(
      "By reason",
      { id: "reasons", note: h("span", null, `${count(total)} refused`, known(data.since_ms) ? [", followed since ", time(data.since_ms)] : null, data.canaries ? `; ${things(data.canaries, "records")} of canaries, which are refused on purpose, left out` : null) },
      reasons(ctx, data.reasons, total, { region, reason }),
      h("p", { class: "note" }, h("a", { href: "/docs/runbooks/refused-updates.md#by-reason" }, "Runbook: updates are refused")),
    ),
    card(
      reason ? `Records: ${words(reason)}` : "Records",
      { id: "records", note: "newest first" },
      pager(shownOf(data.shown, data.of, "records"), [
        ["Newest", before ? ctx.link("/refused", { region, reason }) : null],
        ["Back", back === null ? null : ctx.link("/refused", { region, reason, before: back })],
        ["Older", data.next === null || data.next === undefined ? null : ctx.link("/refused", { region, reason, before: data.next })],
      ]),
      data.records.length ? recordsTable(ctx, { caption: "Refused records, newest first", records: data.records, test: "refused" }) : emptyPanel("none on this page", "No record of this reason and region is in what was read. Counts reach further back than records.", null),
    ),
  ];
}

/** What a person can do about it, which says more than that it was refused. */
function meaning(one) {
  return [prose(one.hint || one.explanation), one.error_id ? [" ", errorLink(one.error_id)] : null];
}

function reasons(ctx, rows, total, { region, reason }) {
  return table({
    caption: "Refused, by reason",
    stacks: true,
    test: "reasons",
    rows,
    key: (one) => one.reason,
    current: (one) => one.reason === reason,
    columns: [
      { label: "Reason", kind: "text", head: true, cell: (one) => h("a", { href: ctx.link("/refused", { region, reason: one.reason }), "aria-current": one.reason === reason ? "true" : null }, words(one.reason)) },
      { label: "Records", kind: "number", cell: (one) => count(one.count) },
      { label: "Of all refused", kind: "bar-cell", cell: (one) => shareBar(one.count, total) },
      { label: "What it means", kind: "text detail", cell: (one) => meaning(one) },
    ],
  });
}
