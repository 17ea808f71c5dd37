// Flow: where does it wait? Regions × stages, each with in, out, what waits and for how long; then partitions and groups.

import { h } from "../dom.js";
import { count, duration, known, NOT_KNOWN, rate, slot, things } from "../format.js";
import { Resource } from "../resource.js";
import { behind, card, emptyPanel, lagLevel, mending, stat, stats, status, table, time, trend } from "../widgets.js";

const AGAIN_MS = 2000;

const STAGES = {
  ingress: ["Ingress", "records published, records judged"],
  folded: ["Folded", "records judged, records in closed windows"],
  windowed: ["Windowed", "windows closed, windows merged"],
  merged: ["Merged", "windows merged, versions made"],
};

export function open(ctx) {
  const flow = new Resource(ctx, "flow", (signal) => ctx.api.read("flow", {}, signal)).every(AGAIN_MS);
  if (ctx.query.region) ctx.opened.add(`partitions-${ctx.query.region}`);
  return {
    title: "Flow",
    view: () => [
      h("div", { class: "page-head", key: "head" }, h("h1", null, "Flow"), h("p", { class: "note" }, "From the log to the model. Rates are means over the last seconds; lag is how long what waits has waited.")),
      flow.view((data) => body(ctx, data), 10),
    ],
  };
}

function body(ctx, data) {
  if (!data.regions.length) return emptyPanel("no region", "The task names no region that could be read.", ctx.fluvial("task list"));
  return [
    worst(ctx, data),
    summary(ctx, data),
    card("Regions and stages", { id: "flow", note: h("span", null, "as of ", time(data.at_ms)) }, matrix(ctx, data)),
    card("Partitions", { id: "partitions", note: "open a region to see its partitions" }, data.regions.map((one) => partitions(ctx, one, data.groups.length > 0))),
    groups(ctx, data),
  ];
}

/** Whether nobody works on the task any more, and nothing waits: then nothing is late either. */
function isOver(ctx) {
  return ctx.snapshot?.health?.word === "finished";
}

/** The one sentence of the page: the stage that waits longest. */
function worst(ctx, data) {
  if (isOver(ctx)) return h("div", { class: "lead", id: "flow-lead", key: "lead" }, status("ok", "finished"), ` ${ctx.snapshot.health.reason}.`);
  const all = data.regions.flatMap((region) => region.stages.map((stage) => ({ ...stage, region: region.region })));
  const waiting = all.filter((one) => known(one.lag_seconds)).sort((left, right) => right.lag_seconds - left.lag_seconds)[0];
  // Without an answer about groups, nobody is known to hold anything: that is no news of the workers.
  const unread = data.groups.length === 0 ? [] : data.regions.flatMap((region) => region.partitions.filter((one) => !one.worker).map((one) => ({ region: region.region, name: slot(region.region, one.partition), waits: one.lag_records !== 0 })));
  const first = unread.find((one) => one.waits) ?? unread[0];
  if (unread.length) {
    const more = unread.length > 1 ? ` and ${count(unread.length - 1)} more` : "";
    const rest = first.waits ? "and records wait." : "and nothing waits there.";
    return h("div", { class: "lead", id: "flow-lead", key: "lead" }, status(first.waits ? "bad" : "unknown", "nobody reads"), ` ${first.name}${more}: no worker holds ${unread.length > 1 ? "them" : "it"}, ${rest}`, mendOf(ctx, first.region));
  }
  if (!waiting) return h("div", { class: "lead", id: "flow-lead", key: "lead" }, status("unknown", "not known"), " No stage tells its lag yet.");
  const level = lagLevel(waiting);
  const text = level === "ok" ? ` Nothing waits long: at most ${duration(waiting.lag_seconds)}, ${STAGES[waiting.stage][0].toLowerCase()} in ${waiting.region}.` : ` ${waiting.region} waits longest: ${duration(waiting.lag_seconds)} before it is ${waiting.stage}.`;
  return h(
    "div",
    { class: "lead", id: "flow-lead", key: "lead" },
    status(level, { ok: "flows", warn: "lags", bad: "lags badly" }[level]),
    text,
    level === "ok" ? null : [" ", h("a", { href: ctx.link("/refused", { region: waiting.region }) }, "Its refusals"), mendOf(ctx, waiting.region)],
  );
}

/** What health says that mends a region. */
function mendOf(ctx, region) {
  return mending(ctx.snapshot?.health?.parts.find((one) => one.name === `region ${region}`)?.mend);
}

function matrix(ctx, data) {
  const names = Object.keys(STAGES);
  return h(
    "scroll-box",
    { class: "scroll", "aria-label": "Regions and stages" },
    h(
      "table",
      { class: "matrix", "data-test": "flow" },
      h("caption", { class: "unseen" }, "Regions and stages"),
      h("thead", null, h("tr", null, h("th", { scope: "col", class: "text" }, "Region"), names.map((name) => h("th", { scope: "col", class: "text", key: name }, STAGES[name][0], h("span", { class: "note" }, STAGES[name][1]))))),
      h(
        "tbody",
        null,
        data.regions.map((region) =>
          h(
            "tr",
            { key: region.region },
            h("th", { scope: "row", class: "text" }, region.region, h("a", { class: "note", href: ctx.link("/refused", { region: region.region }) }, "refusals")),
            names.map((name) => h("td", { class: "stage", key: name, "data-stage": STAGES[name][0] }, stage(region.stages.find((one) => one.stage === name), isOver(ctx)))),
          ),
        ),
      ),
    ),
  );
}

function stage(one, over) {
  if (!one) return h("span", { class: "faint" }, NOT_KNOWN);
  const level = lagLevel(one, over);
  const waits = one.waiting === 0 ? "nothing waits" : `${things(one.waiting, one.unit ?? "records")} ${one.waiting === 1 ? "waits" : "wait"}`;
  const name = (text) => h("span", { class: "name" }, text);
  return h(
    "div",
    { class: `cell ${level}` },
    h("div", null, name("in"), h("span", null, rate(one.in_per_second)), name("out"), h("span", null, rate(one.out_per_second))),
    h("div", null, name("lag"), h("span", null, known(one.lag_seconds) ? [level === "ok" ? duration(one.lag_seconds) : status(level, duration(one.lag_seconds)), " ", one.lag_seconds > 0 ? trend(one.trend, level !== "ok") : null] : status("unknown", "not known"))),
    h("div", { class: "note" }, known(one.waiting) ? waits : "not known what waits"),
  );
}

function summary(ctx, { merger: one, at_ms: atMs, regions }) {
  const open = regions.flatMap((region) => region.partitions.filter((each) => known(each.oldest_open_seconds)).map((each) => ({ name: slot(region.region, each.partition), seconds: each.oldest_open_seconds })));
  const oldest = open.sort((left, right) => right.seconds - left.seconds)[0];
  const first = regions.flatMap((region) => region.stages.filter((each) => each.stage === "ingress"));
  const sum = (name) => (first.every((each) => known(each[name])) ? first.reduce((total, each) => total + each[name], 0) : null);
  return stats(
    stat("Published", rate(sum("in_per_second")), "records, all regions"),
    stat("Judged", rate(sum("out_per_second")), "records, all regions"),
    stat("Oldest open window", oldest ? duration(oldest.seconds) : "none open", oldest?.name, { id: "stat-oldest" }),
    stat("Windows waiting", count(one?.windows_waiting), "for the merger, in no version yet"),
    stat("Head", known(one?.head) ? h("a", { href: ctx.link(`/versions/${one.head}`) }, count(one.head)) : NOT_KNOWN, known(one?.age_seconds) ? time(atMs - one.age_seconds * 1000) : null),
  );
}

function partitions(ctx, region, grouped) {
  const open = region.partitions.map((one) => one.oldest_open_seconds).filter(known);
  const unread = grouped && !isOver(ctx) ? region.partitions.filter((one) => !one.worker) : [];
  const level = unread.some((one) => one.lag_records !== 0) ? "bad" : "unknown";
  const line = h(
    "span",
    null,
    h("strong", null, region.region),
    ` ${things(region.partitions.length, "partitions")}, oldest open window ${open.length ? duration(Math.max(...open)) : "none"}`,
    unread.length ? [" ", status(level, `${count(unread.length)} unread`)] : null,
  );
  return behind(
    ctx,
    `partitions-${region.region}`,
    () =>
      table({
        caption: `Partitions of ${region.region}`,
        tall: region.partitions.length > 16,
        test: `partitions-${region.region}`,
        rows: region.partitions,
        key: (one) => one.partition,
        columns: [
          { label: "Partition", kind: "text", head: true, cell: (one) => slot(region.region, one.partition) },
          { label: "Log end", kind: "number", cell: (one) => count(one.log_end) },
          { label: "Folded to", kind: "number", cell: (one) => count(one.folded_to) },
          { label: "Lag", kind: "number", cell: (one) => (lagLevel(one) === "ok" ? duration(one.lag_seconds) : status(lagLevel(one), known(one.lag_seconds) ? duration(one.lag_seconds) : "not known")) },
          { label: "Records", kind: "number", note: "Behind the log’s end", cell: (one) => count(one.lag_records) },
          { label: "Trend", kind: "text", cell: (one) => trend(one.trend, lagLevel(one) !== "ok") ?? NOT_KNOWN },
          { label: "Windows", kind: "number", cell: (one) => `${count(one.windows)}${one.windows_waiting ? `, ${count(one.windows_waiting)} wait` : ""}` },
          { label: "Oldest open", kind: "number", cell: (one) => (known(one.oldest_open_seconds) ? duration(one.oldest_open_seconds) : "none open") },
          { label: "Worker", kind: "text id", cell: (one) => one.worker || (grouped ? status(one.lag_records === 0 ? "unknown" : "bad", "nobody") : NOT_KNOWN) },
        ],
      }),
    line,
  );
}

function groups(ctx, data) {
  const rows = data.groups.flatMap((group) => (group.members.length ? group.members.map((member, index) => ({ group, member, index })) : [{ group, member: null, index: 0 }]));
  return card(
    "Consumer groups",
    { id: "groups", note: "as the broker sees them" },
    table({
      caption: "Consumer groups and their members",
      test: "groups",
      tall: rows.length > 14,
      rows,
      key: ({ group, member, index }) => `${group.group} ${member?.client_id} ${index}`,
      empty: "The broker knows no group of this task.",
      columns: [
        { label: "Group", kind: "text", head: true, cell: ({ group }) => group.group },
        { label: "State", kind: "text", cell: ({ group }) => groupState(group) },
        { label: "Member", kind: "text id", cell: ({ member }) => member?.client_id ?? "nobody" },
        { label: "Partitions", kind: "text", cell: ({ member }) => held(member) },
      ],
    }),
  );
}

function groupState(group) {
  const level = !group.members.length ? "unknown" : /stable/i.test(group.state) ? "ok" : "busy";
  return status(level, String(group.state || "not known").toLowerCase());
}

function held(member) {
  const all = member?.partitions;
  if (Array.isArray(all)) return all.length ? all.map((one) => (typeof one === "object" ? slot(one.topic ?? "", one.partition) : one)).join(", ") : "none";
  return known(all) ? count(all) : NOT_KNOWN;
}
