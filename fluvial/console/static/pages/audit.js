// Audit: can I prove it? Runs so far with their verdicts, one more by button, and the command that does the same.

import { AuditControl, findings, progress, runStatus } from "../audits.js";
import { h } from "../dom.js";
import { count, duration, known } from "../format.js";
import { Resource } from "../resource.js";
import { card, command, emptyPanel, hash, table, time } from "../widgets.js";

export function open(ctx) {
  const page = { control: null, wanted: null };
  const runs = new Resource(ctx, "runs", (signal) => ctx.api.read("audits", {}, signal)).once();
  return {
    title: "Audit",
    audit(run) {
      page.control?.heard(run);
      if (!runs.data) return;
      const there = runs.data.runs.some((one) => one.id === run.id);
      runs.data.runs = there ? runs.data.runs.map((one) => (one.id === run.id ? run : one)) : [run, ...runs.data.runs];
    },
    view: () => [
      h("div", { class: "page-head", key: "head" }, h("h1", null, "Audit"), h("p", { class: "note" }, "An audit folds the signed logs again from their beginning, and compares every manifest and model bit for bit. Nothing of what the pipeline computed is believed.")),
      starter(ctx, page),
      runs.view((data) => list(ctx, data), 6),
    ],
  };
}

function starter(ctx, page) {
  const head = ctx.snapshot?.head?.version;
  const version = page.wanted ?? head ?? null;
  if (!known(version) || version < 1) {
    return card("Audit a version", { id: "start" }, emptyPanel("nothing to audit", "There is no version after the initial one yet.", null));
  }
  // While one runs, the head moves on; the control stays with what was asked.
  const busy = page.control && (page.control.run || page.control.asking || page.control.sending);
  if (!page.control || (page.control.version !== version && (page.wanted !== null || !busy))) page.control = new AuditControl(ctx, version);
  const input = (event) => {
    const value = Number(event.currentTarget.value);
    page.wanted = Number.isInteger(value) && value >= 1 ? value : null;
    ctx.redraw();
  };
  return card(
    "Audit a version",
    { id: "start", note: "one at a time" },
    h("div", { class: "filters" }, h("label", { for: "audit-version" }, "Up to version"), h("input", { id: "audit-version", type: "number", min: 1, max: head ?? null, step: 1, placeholder: String(page.control.version), on: { input } }), h("span", { class: "note" }, known(head) ? `the newest is ${count(head)}` : null)),
    page.control.view(null),
  );
}

function list(ctx, data) {
  return [
    card("The same from a shell", { id: "shell", note: "all versions; exit code 1 when anything differs" }, command(data.commands?.all ?? ctx.fluvial("audit"), "audit-all-command")),
    card(
      "Runs",
      { id: "runs", note: "of this console and of shells on this machine, newest first; the newest 20 are kept" },
      table({
        caption: "Audit runs, newest first",
        test: "runs",
        rows: data.runs,
        key: (one) => one.id,
        empty: "None yet.",
        columns: [
          { label: "Version", kind: "number", head: true, cell: (one) => [one.first > 1 ? `${count(one.first)} to ` : null, h("a", { href: ctx.link(`/versions/${one.version}`) }, count(one.version))] },
          { label: "Verdict", kind: "text", cell: (one) => runStatus(one) },
          { label: "Records", kind: "text", cell: (one) => (one.state === "running" ? progress(one) : known(one.total) ? count(one.total) : count(one.done)) },
          { label: "When", kind: "text", cell: (one) => time(one.started_ms) },
          { label: "Took", kind: "number", cell: (one) => duration(one.seconds) },
          { label: "Digest", kind: "text", cell: (one) => hash(one.digest) },
          { label: "Findings", kind: "text", cell: (one) => (one.findings?.length ? findings(one) : "none") },
        ],
      }),
    ),
  ];
}
