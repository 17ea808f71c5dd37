// One record: its verdict, why, what it said, where it counts, and the command that shows the same.

import { h } from "../dom.js";
import { absolute, count, decimal, known, NOT_KNOWN, place, slot } from "../format.js";
import { Resource } from "../resource.js";
import { deviceLink, measured } from "../records.js";
import { card, command, errorLink, outcome, outcomeLevel, prose, status, time } from "../widgets.js";

const FIELDS_MAX = 80;
const TEXT_MAX = 400;

export function open(ctx) {
  const { region, partition, offset, update_id: updateId } = ctx.query;
  const wanted = updateId ? { update_id: updateId } : { region, partition, offset };
  const name = updateId ? `Update ${updateId}` : place(region, partition, offset);
  const record = new Resource(ctx, JSON.stringify(wanted), (signal) => ctx.api.read("record", wanted, signal)).once();
  return {
    title: name,
    view: () => [
      h("nav", { class: "crumbs", "aria-label": "Where this is", key: "crumbs" }, outcomeLevel(record.data?.record.outcome) === "bad" ? [h("a", { href: ctx.link("/refused", { reason: record.data.record.outcome }) }, "Refused"), h("span", { "aria-hidden": "true" }, "/")] : null, "Record"),
      h("div", { class: "page-head", key: "head" }, h("h1", { class: "id" }, name)),
      record.view((data) => body(ctx, data), 8),
    ],
  };
}

function pair(name, value) {
  return [h("dt", null, name), h("dd", null, value)];
}

function body(ctx, { record: one, update, version, merged, window }) {
  const at = place(one.region, one.partition, one.offset);
  return [
    h(
      "section",
      { class: `panel verdict ${outcomeLevel(one.outcome)}`, id: "verdict", key: "verdict", "data-outcome": one.outcome ?? "none", "aria-label": "Verdict" },
      h("p", { class: "panel-title" }, outcome(one.outcome)),
      one.explanation ? h("p", { class: "message" }, prose(one.explanation), one.error_id ? [" ", errorLink(one.error_id)] : null) : null,
      one.hint ? h("p", { class: "note" }, "Next: ", prose(one.hint)) : null,
      one.detail ? h("p", { class: "id", id: "detail" }, one.detail) : null,
      h("p", { class: "note" }, whereTo(ctx, one, version, merged)),
      command(one.command, "record-command"),
    ),
    h(
      "div",
      { class: "grid", key: "facts" },
      card(
        "What was measured",
        { id: "record-facts" },
        h(
          "dl",
          { class: "pairs" },
          pair("Record", at),
          pair("Logged", h("span", null, time(one.timestamp_ms), h("span", { class: "note" }, ` ${absolute(one.timestamp_ms)}`))),
          pair("Device", one.device_id ? h("a", { class: "id", href: deviceLink(ctx, one) }, one.device_id) : NOT_KNOWN),
          pair("Update", h("span", { class: "id" }, one.update_id || NOT_KNOWN)),
          pair("Base version", known(one.base_version) ? h("a", { href: ctx.link(`/versions/${one.base_version}`) }, count(one.base_version)) : NOT_KNOWN),
          pair("Staleness", known(one.staleness) ? `${count(one.staleness)} versions` : NOT_KNOWN),
          pair("Norm", measured(one.norm, 4)),
          pair("Norm against peers", measured(one.norm_deviations, 2, " deviations")),
          pair("Direction", known(one.cosine) ? `cosine ${decimal(one.cosine, 3)} to the last step` : measured(null)),
          pair("Window", known(window) ? `${count(window)} of ${slot(one.region, one.partition)}` : "none yet"),
        ),
      ),
      card("What it says", { id: "record-update", note: "decoded; tensors without their data" }, update ? fields(update) : h("p", { class: "note" }, "It could not be decoded, or is no update.")),
    ),
  ];
}

function whereTo(ctx, one, version, merged) {
  if (one.outcome === "accepted" && (merged?.dropped || merged?.lateness_weight < 1)) {
    return [h("a", { href: ctx.link(`/versions/${version}`), id: "record-version" }, `Version ${count(version)}`), merged.sentence.replace(/^version \d+/, ""), "."];
  }
  if (known(version)) return ["It counts in ", h("a", { href: ctx.link(`/versions/${version}`), id: "record-version" }, `version ${count(version)}`), "."];
  if (one.outcome === "accepted") return [status("busy", "waiting"), " Accepted, and in no version yet."];
  return "It counts in no version.";
}

/** Whatever fields there are, as far as a page goes; nested ones by their whole name. */
function fields(update) {
  const rows = flat(update);
  const shown = rows.slice(0, FIELDS_MAX);
  return [
    h("dl", { class: "pairs" }, shown.map(([name, value]) => pair(name.replaceAll("_", " "), h("span", { class: "id" }, value)))),
    rows.length > FIELDS_MAX ? h("p", { class: "note" }, `showing ${FIELDS_MAX} of ${count(rows.length)} fields`) : null,
  ];
}

function flat(value, name = "") {
  if (Array.isArray(value) && value.every((one) => one === null || typeof one !== "object")) return [[name, value.join(", ").slice(0, TEXT_MAX) || NOT_KNOWN]];
  if (value !== null && typeof value === "object") return Object.entries(value).flatMap(([key, one]) => flat(one, name ? `${name} · ${key}` : key));
  return [[name, String(value ?? NOT_KNOWN).slice(0, TEXT_MAX)]];
}
