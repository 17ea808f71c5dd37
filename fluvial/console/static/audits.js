// Asking for an audit and watching it. The operator token lives in this module's memory and nowhere else.

import { h } from "./dom.js";
import { count, duration } from "./format.js";
import { command, errorLink, prose, status, told } from "./widgets.js";

let token = "";

const WORDS = {
  running: ["busy", "replaying"],
  identical: ["ok", "identical"],
  differs: ["bad", "differs"],
  failed: ["bad", "failed"],
};

const AGAIN_MS = 1500;

export function runStatus(run) {
  return status(...(WORDS[run.state] ?? ["unknown", run.state]));
}

/** One version's audit on a page: the button, the token's form, progress, the result. */
export class AuditControl {
  constructor(ctx, version, run = null) {
    Object.assign(this, { ctx, version, run, asking: false, sending: false, problem: null });
  }

  /** An event, or an answer: of this version, and not older than what is shown. */
  heard(run) {
    if (!run || run.version !== this.version) return;
    if (this.run?.id === run.id && this.run.state !== "running" && run.state === "running") return;
    this.run = run;
    if (run.state === "running") this.watch();
  }

  /** Events tell as well; asking is for a stream that is down. */
  watch() {
    if (this.timer) return;
    this.timer = setInterval(async () => {
      if (this.run?.state !== "running" || this.ctx.signal.aborted) {
        clearInterval(this.timer);
        this.timer = null;
        return;
      }
      try {
        this.heard(await this.ctx.api.read(`audits/${encodeURIComponent(this.run.id)}`, {}, this.ctx.signal));
      } catch (problem) {
        if (this.ctx.signal.aborted) return;
        this.problem = problem;
      }
      this.ctx.redraw();
    }, AGAIN_MS);
  }

  ask() {
    this.problem = null;
    if (token) {
      this.send();
      return;
    }
    this.asking = true;
    this.ctx.redraw();
    requestAnimationFrame(() => requestAnimationFrame(() => document.getElementById("token")?.focus()));
  }

  async send() {
    this.sending = true;
    this.ctx.redraw();
    try {
      this.heard(await this.ctx.api.audit(this.version, token));
      this.asking = false;
      this.problem = null;
    } catch (problem) {
      this.problem = problem;
      if (problem.status === 401) {
        token = ""; // a wrong one is not worth keeping
        this.asking = true;
      }
    }
    this.sending = false;
    this.ctx.redraw();
  }

  submit(event) {
    event.preventDefault();
    const input = event.currentTarget.querySelector("input");
    token = input.value.trim();
    input.value = "";
    if (token) this.send();
  }

  view(shellCommand) {
    const running = this.run?.state === "running";
    return h(
      "div",
      { class: `audit ${this.run?.state ?? "none"}`, id: "audit", "data-state": this.run?.state ?? "none", key: "audit" },
      h(
        "div",
        { class: "audit-row" },
        h("button", { type: "button", class: "primary", id: "audit-button", disabled: running || this.sending, on: { click: () => this.ask() } }, this.run && !running ? "Audit again" : "Audit"),
        this.result(),
      ),
      this.asking ? this.form() : null,
      this.problem ? h("p", { class: "field-problem", role: "alert", id: "audit-problem" }, this.problem.id ? [errorLink(this.problem.id), ": "] : null, this.problem.message, ". ", this.problem.hint ? ["Next: ", prose(this.problem.hint)] : null) : null,
      running ? h("div", { id: "audit-progress" }, progress(this.run)) : null,
      this.run?.findings?.length ? findings(this.run) : null,
      shellCommand ? h("div", null, h("p", { class: "note" }, "The same from a shell:"), command(shellCommand, "audit-command")) : null,
    );
  }

  result() {
    if (!this.run) return h("span", { class: "note", id: "audit-result", role: "status" }, "Replays the signed logs from their beginning to this version, and compares bit for bit.");
    const { run } = this;
    const text = { identical: `every byte is the same, ${duration(run.seconds)}`, differs: "something is not what the logs say", failed: "it could not be finished", running: "" }[run.state];
    return h("span", { id: "audit-result", role: "status" }, runStatus(run), text ? h("span", { class: "note" }, ` ${text}`) : null);
  }

  form() {
    return h(
      "form",
      { class: "token", id: "token-form", on: { submit: (event) => this.submit(event) } },
      h("label", { for: "token" }, "Operator token"),
      h("input", { id: "token", type: "password", autocomplete: "off", required: true, maxlength: 256, "aria-describedby": "token-help" }),
      h("button", { type: "submit", disabled: this.sending }, this.sending ? "Sending" : "Start the audit"),
      h("p", { class: "note", id: "token-help" }, "It stands in the file console-token of the home that the console was started with. It is kept in this page’s memory only, until the page is closed."),
    );
  }
}

export function progress(run) {
  const known = run.total > 0;
  return h(
    "div",
    { class: "progress" },
    h("progress", { max: known ? run.total : 1, value: known ? run.done : undefined, "aria-label": `Audit of version ${run.version}` }),
    h("span", { class: "note" }, known ? `${count(run.done)} of ${count(run.total)} ${run.unit}` : `${count(run.done)} ${run.unit}`),
  );
}

export function findings(run) {
  return h("ul", { class: "findings", "aria-label": "Findings" }, run.findings.map((text) => h("li", null, told(text))), run.state === "differs" ? h("li", null, h("a", { href: "/docs/runbooks/audit-mismatch.md#what-to-do" }, "Runbook: an audit differs")) : null);
}
