// Defence: who is suspected, why and since when, and what did it cost the others?

import { h } from "../dom.js";
import { count, decimal, known, percent, things, words } from "../format.js";
import { Resource } from "../resource.js";
import { card, command, emptyPanel, hash, pager, prose, shareBar, shownOf, stat, stats, status, table, time } from "../widgets.js";

const AGAIN_MS = 5000;

const KINDS = {
  none: "No defence: updates count as they come.",
  peers: "Updates are compared with their partition’s others, and with the last step.",
  median: "No update counts for more than a little over the usual norm; zeros are refused.",
  guide: "Updates are weighed by how far they agree with a guardian’s direction; those against it are refused.",
};

export function open(ctx) {
  const { region = "" } = ctx.query;
  const page = new Resource(ctx, "defence", (signal) => ctx.api.read("defence", { region }, signal));
  page.every(AGAIN_MS);
  return {
    title: "Defence",
    view: () => [
      h("div", { class: "page-head", key: "head" }, h("h1", null, "Defence"), h("p", { class: "note" }, "Suspected is who was refused of late as anomalous. The log decides, not the console: every auditor finds the same.")),
      filters(ctx, region),
      page.view((data) => body(ctx, data), 8),
    ],
  };
}

function filters(ctx, region) {
  const regions = [...new Set([region, ...(ctx.snapshot?.regions ?? []).map((one) => one.region)])].filter(Boolean);
  const change = (event) => ctx.go("/defence", { region: event.currentTarget.value });
  return h(
    "div",
    { class: "filters", key: "filters" },
    h("label", { for: "region" }, "Region"),
    h("select", { id: "region", value: region, on: { change } }, h("option", { value: "", key: "" }, "all"), regions.map((one) => h("option", { value: one, key: one }, one))),
  );
}

function body(ctx, data) {
  const refused = data.rules.reduce((sum, one) => sum + one.count, 0);
  const { unsuspected, usual } = data;
  return [
    stats(
      stat("Defence", words(data.kind), KINDS[data.kind] ?? "", { id: "stat-defence" }),
      stat("In quarantine", count(data.quarantined), data.keeps_shares ? `of ${things(data.known_devices, "devices")} that were scored in the last ${data.accepted_in_versions} versions` : "this task’s policy keeps no shares of its devices", { id: "stat-quarantined" }),
      stat("Refused by a rule", count(refused), h("span", null, `beside ${count(data.accepted)} accepted, followed since `, time(data.since_ms)), { id: "stat-refused" }),
      stat("Of the others", unsuspected.of ? percent(unsuspected.refused / unsuspected.of, 0) : percent(null), unsuspected.of ? `${count(unsuspected.refused)} of the newest ${things(unsuspected.of, "refusals")}, of ${things(unsuspected.devices, "devices")} that are not suspected: what the rules may cost the honest` : "no refusal by a rule yet", { id: "stat-others" }),
      known(usual?.norm) ? stat("Usual norm", decimal(usual.norm, 3), `at version ${count(data.version)}${known(usual.cosine) ? `; usual cosine with the guide ${decimal(usual.cosine, 2)}` : ""}`, { id: "stat-usual" }) : null,
      data.kind === "guide" ? stat("Guide", data.guide_sha256 ? hash(data.guide_sha256) : status("warn", "none"), data.guide_sha256 ? `named by version ${count(data.version)}` : h("a", { href: "/docs/runbooks/guardian-away.md#what-to-do" }, "Runbook: the guardian is away"), { id: "stat-guide" }) : null,
    ),
    suspects(ctx, data),
    rules(ctx, data, refused),
    partitions(data),
  ];
}

function suspects(ctx, data) {
  if (!data.keeps_shares) return emptyPanel("no shares are kept", `The policy of this task keeps nothing of its devices: it is of a format before v3, or \`shares.per_version\` is 0. Refused updates are under Refused.`, null, "no-shares");
  if (data.partitions.every((one) => one.window === null)) return emptyPanel("not known yet", "No window of any partition was followed: a worker publishes one when it is full, or old enough.", null, "no-window");
  if (!data.devices.length) return h("div", { class: "panel", key: "suspects", "data-test": "empty" }, h("p", { class: "panel-title" }, status("ok", "nobody is suspected")), h("p", { class: "note" }, `No device’s newest ${count(data.scored_max)} scored updates have an anomalous one.`));
  return card(
    "Suspected devices",
    { id: "suspects", note: "the most suspected first", actions: h("a", { href: data.runbook }, "Runbook: poisoning") },
    pager(shownOf(data.shown, data.of, "devices"), []),
    table({
      caption: "Suspected devices, the most suspected first",
      test: "suspects",
      stacks: true,
      rows: data.devices,
      key: (one) => `${one.region} ${one.device_id}`,
      columns: [
        { label: "Device", kind: "text id", head: true, cell: (one) => h("a", { href: ctx.link(`/fleet/devices/${encodeURIComponent(one.device_id)}`, { region: one.region }) }, one.device_id) },
        { label: "Region", kind: "text", cell: (one) => one.region },
        { label: "State", kind: "text", cell: (one) => (one.revoked ? status("bad", "revoked") : one.quarantined ? status("bad", "in quarantine") : status("warn", "suspected")) },
        { label: "Versions", kind: "text", cell: (one) => (one.quarantined ? `from ${count(one.quarantined_since)} until before ${count(one.quarantined_until)}` : h("span", { class: "faint" }, "none")) },
        { label: "Anomalous", kind: "number", note: `Of its last scored updates, at most ${count(data.scored_max)}; counted anew from a quarantine on`, cell: (one) => `${count(one.anomalous)} of ${count(one.scored)}` },
        { label: "Accepted", kind: "number", note: `Of the last ${count(data.accepted_in_versions)} versions`, cell: (one) => count(one.accepted) },
        { label: "Newest reason", kind: "text detail", cell: (one) => reason(one) },
      ],
    }),
    command(data.command),
    data.pardon && data.quarantined ? h("p", { class: "note" }, "An operator ends a quarantine, once the device is mended:") : null,
    data.pardon && data.quarantined ? command(data.pardon, "pardon") : null,
  );
}

function reason(one) {
  const found = one.last_anomalous;
  if (!found) return h("span", { class: "faint" }, "none in what was followed");
  return h("span", null, prose(found.detail || one.meaning || ""), " · ", time(found.written_at_ms));
}

function rules(ctx, data, total) {
  return card(
    "What the rules refused",
    { id: "rules", note: h("span", null, "followed since ", time(data.since_ms)) },
    table({
      caption: "Refused by the defence and by shares",
      test: "rules",
      stacks: true,
      rows: data.rules,
      key: (one) => one.reason,
      columns: [
        { label: "Reason", kind: "text", head: true, cell: (one) => h("a", { href: ctx.link("/refused", { reason: one.reason }) }, words(one.reason)) },
        { label: "Records", kind: "number", cell: (one) => count(one.count) },
        { label: "Of these", kind: "bar-cell", cell: (one) => shareBar(one.count, total) },
        { label: "What it means", kind: "text detail", cell: (one) => prose(one.hint || one.explanation) },
      ],
    }),
  );
}

function partitions(data) {
  const unread = data.partitions.filter((one) => one.problem || one.window === null);
  if (!data.keeps_shares || (!unread.length && data.partitions.length === data.partitions_of)) return null;
  return card(
    "Not known",
    { id: "unknown-partitions", note: data.partitions.length < data.partitions_of ? `${count(data.partitions.length)} of ${things(data.partitions_of, "partitions")} were read: choose a region` : null },
    table({
      caption: "Partitions whose devices are not known",
      rows: unread,
      key: (one) => `${one.region} ${one.partition}`,
      empty: "Every partition that was read is known.",
      columns: [
        { label: "Partition", kind: "text", head: true, cell: (one) => `${one.region}[${one.partition}]` },
        { label: "Why", kind: "text detail", cell: (one) => (one.problem ? prose(`${one.problem.message} (${one.problem.id})`) : "it has no window yet, or none was followed") },
      ],
    }),
  );
}
