// Fleet: who takes part? Participation and how even it is, cohorts and how well each is served, cost, devices.

import { h } from "../dom.js";
import { bytes, cost, count, decimal, duration, known, metric, percent } from "../format.js";
import { titled } from "../quality.js";
import { Resource } from "../resource.js";
import { deviceCell } from "../records.js";
import { before as backIn } from "../trails.js";
import { bar, card, emptyPanel, pager, shareBar, shownOf, stat, stats, table, time } from "../widgets.js";

const AGAIN_MS = 5000;
const SORTS = { recent: "seen last", refused: "refused most", accepted: "accepted most" };

export function open(ctx) {
  const sort = ctx.query.sort in SORTS ? ctx.query.sort : "recent";
  const after = ctx.query.after ?? "";
  const fleet = new Resource(ctx, "fleet", (signal) => ctx.api.read("fleet", { sort, after }, signal));
  const back = backIn(`fleet ${ctx.task} ${sort}`, after);
  if (after) fleet.once();
  else fleet.every(AGAIN_MS);
  return {
    title: "Fleet",
    view: () => [
      h("div", { class: "page-head", key: "head" }, h("h1", null, "Fleet"), h("p", { class: "note" }, "Devices that the console has seen, in the records that it has followed.")),
      finder(ctx),
      fleet.view((data) => body(ctx, data, { sort, after, back }), 10),
    ],
  };
}

/** One device by its id: its partition follows from it, so any can be looked at, seen or not. */
function finder(ctx) {
  const regions = (ctx.snapshot?.regions ?? []).map((one) => one.region);
  const submit = (event) => {
    event.preventDefault();
    const form = event.currentTarget;
    const id = form.querySelector("input").value.trim();
    if (id) ctx.go(`/fleet/devices/${encodeURIComponent(id)}`, { region: form.querySelector("select").value });
  };
  return h(
    "form",
    { class: "filters", id: "device-form", key: "finder", role: "search", "aria-label": "Device", on: { submit } },
    h("label", { for: "device-id" }, "Device"),
    h("input", { id: "device-id", type: "text", maxlength: 256, autocomplete: "off", spellcheck: "false", placeholder: "its id", required: true }),
    h("label", { for: "device-region" }, "in"),
    h("select", { id: "device-region" }, regions.map((one) => h("option", { value: one, key: one }, one))),
    h("button", { type: "submit" }, "Its timeline"),
  );
}

function body(ctx, data, query) {
  if (!data.devices_seen) return emptyPanel("no device seen", "No device has published since the console began to follow. The canary publishes one update whose verdict is known.", ctx.fluvial(`canary --task ${ctx.task} --region ${ctx.snapshot?.regions?.[0]?.region ?? "REGION"}`));
  const { participation, fairness } = data;
  return [
    stats(
      stat("Devices seen", count(data.devices_seen), h("span", null, "since ", time(data.since_ms), data.forgotten ? `; ${count(data.forgotten)} forgotten` : null), { id: "stat-devices" }),
      stat("Unevenness", decimal(participation?.gini, 2), "Gini of accepted updates: 0 all alike, 1 one alone"),
      stat("Busiest tenth", percent(participation?.top_tenth_share), "of all accepted updates"),
      stat("Fairness gap", metric(data.metric?.name, fairness?.gap), `${data.metric?.name ?? "metric"}, best tenth of the cohorts from the worst`),
      stat("Worst decile", metric(data.metric?.name, fairness?.worst_decile), `mean ${data.metric?.name ?? "metric"} of the worst served tenth`),
    ),
    h("div", { class: "grid", key: "fairness" }, participationCard(participation), cohorts(ctx, data)),
    costs(data.cost_by_region ?? [], data.currency),
    devices(ctx, data, query),
  ];
}

function participationCard(participation) {
  const rows = participation?.histogram ?? [];
  const total = Math.max(1, rows.reduce((sum, one) => sum + one.devices, 0));
  return card(
    "Participation",
    { id: "participation", note: "how many devices had so many updates accepted" },
    table({
      caption: "Participation",
      rows,
      key: (one) => one.updates_min,
      empty: "not known yet",
      columns: [
        { label: "Updates", kind: "number", head: true, cell: (one) => (one.updates_min === one.updates_max ? count(one.updates_min) : known(one.updates_max) ? `${count(one.updates_min)} to ${count(one.updates_max)}` : `${count(one.updates_min)} or more`) },
        { label: "Devices", kind: "number", cell: (one) => count(one.devices) },
        { label: "Of the devices", kind: "wide-bar", cell: (one) => shareBar(one.devices, total) },
      ],
    }),
  );
}

function cohorts(ctx, data) {
  const name = data.metric?.name ?? "metric";
  const worst = data.metric?.better === "lower" ? (one) => -one.metric : (one) => one.metric;
  const unknown = (one) => Number(!known(one.metric));
  const rows = [...(data.cohorts ?? [])].sort((left, right) => unknown(left) - unknown(right) || worst(left) - worst(right) || 0);
  const shares = rows.every((one) => !known(one.metric) || (one.metric >= 0 && one.metric <= 1)) && data.metric?.better !== "lower";
  const priced = rows.some((one) => known(one.accepted));
  return card(
    "Cohorts",
    { id: "cohorts", note: known(data.cohorts_version) ? h("span", null, "worst served first, at ", h("a", { href: ctx.link(`/versions/${data.cohorts_version}`) }, `version ${count(data.cohorts_version)}`)) : "worst served first" },
    table({
      caption: `${titled(name)} by cohort`,
      tall: rows.length > 12,
      rows,
      key: (one) => one.cohort,
      empty: "The task’s evaluation tells of no cohorts.",
      columns: [
        { label: "Cohort", kind: "text id", head: true, cell: (one) => one.cohort },
        { label: titled(name), kind: shares ? "wide-bar" : "number", cell: (one) => (shares ? h("span", { class: "meter" }, bar(one.metric), h("span", null, metric(name, one.metric))) : metric(name, one.metric)) },
        priced ? { label: "Accepted", kind: "number", cell: (one) => count(one.accepted) } : null,
        priced ? { label: costLabel("Cost", data.currency), kind: "number", cell: (one) => cost(one.cost) } : null,
      ].filter(Boolean),
    }),
  );
}

const costLabel = (label, currency) => (currency ? `${label}, ${currency}` : label);

function costs(rows, currency) {
  const total = rows.reduce((sum, one) => sum + one.cost, 0);
  return card(
    "Cost by region",
    { id: "costs", note: rows.length ? `${cost(total, currency)} in all, of the windows that were followed` : null },
    table({
      caption: "Cost by region",
      rows,
      key: (one) => one.region,
      empty: "No window has told its cost yet.",
      columns: [
        { label: "Region", kind: "text", head: true, cell: (one) => one.region },
        { label: costLabel("Cost", currency), kind: "number", cell: (one) => cost(one.cost) },
        { label: "Sent up", kind: "number", cell: (one) => bytes(one.bytes_up) },
        { label: "Device time", kind: "number", cell: (one) => duration(one.device_seconds) },
        { label: "Accepted", kind: "number", cell: (one) => count(one.accepted) },
        { label: costLabel("Cost per update", currency), kind: "number", cell: (one) => cost(one.accepted ? one.cost / one.accepted : null) },
      ],
    }),
  );
}

function devices(ctx, data, { sort, after, back }) {
  const head = (name, label) => h("a", { href: ctx.link("/fleet", { sort: name }), "aria-current": sort === name ? "true" : null }, label);
  const sorted = (name) => (sort === name ? "descending" : null);
  return card(
    "Devices",
    { id: "devices", note: `those ${SORTS[sort]} first` },
    pager(shownOf(data.shown, data.of, "devices"), [
      ["First", after ? ctx.link("/fleet", { sort }) : null],
      ["Back", back === null ? null : ctx.link("/fleet", { sort, after: back })],
      ["Next", data.next === null || data.next === undefined ? null : ctx.link("/fleet", { sort, after: data.next })],
    ]),
    table({
      caption: "Devices",
      test: "devices",
      rows: data.devices,
      key: (one) => `${one.region} ${one.device_id}`,
      columns: [
        { label: "Device", kind: "text id", head: true, cell: (one) => deviceCell(ctx, one) },
        { label: "Region", kind: "text", cell: (one) => (one.placed ? one.region : h("span", { class: "faint", title: "None of its records shows of which region it is" }, `not proved, seen in ${one.region}`)) },
        { label: head("accepted", "Accepted"), kind: "number", sorted: sorted("accepted"), cell: (one) => count(one.accepted) },
        { label: head("refused", "Refused"), kind: "number", sorted: sorted("refused"), cell: (one) => h("span", { class: one.refused ? "" : "faint" }, count(one.refused)) },
        { label: "Refused of its own", kind: "number", cell: (one) => percent(one.accepted + one.refused ? one.refused / (one.accepted + one.refused) : null, 0) },
        { label: head("recent", "Seen"), kind: "text", sorted: sorted("recent"), cell: (one) => time(one.last_ms) },
      ],
    }),
  );
}
