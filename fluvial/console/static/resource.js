// One thing that a page reads from the API: loading, there, old, or failed. Old data stays on the page, and says so.

import { h } from "./dom.js";
import { problemPanel, skeleton, time, clock } from "./widgets.js";

export class Resource {
  /** `read(signal)` → a promise of the data. `name`: what the page keeps it under while its query changes. */
  constructor(ctx, name, read) {
    Object.assign(this, { ctx, name, read, problem: null, loading: false, atMs: null });
    this.data = ctx.kept.get(name) ?? null;
  }

  async load() {
    if (this.loading || this.ctx.signal.aborted) return;
    this.loading = true;
    try {
      this.data = await this.read(this.ctx.signal);
      this.ctx.kept.set(this.name, this.data);
      this.atMs = clock.nowMs();
      this.problem = null;
    } catch (problem) {
      if (this.ctx.signal.aborted) return;
      if (problem.name !== "Problem") console.error(problem);
      this.problem = problem;
    } finally {
      this.loading = false;
    }
    this.ctx.redraw();
  }

  /** Reads again every so often while the page is looked at, until it is left. */
  every(ms) {
    const timer = setInterval(() => {
      if (!document.hidden) this.load();
    }, ms);
    this.ctx.signal.addEventListener("abort", () => clearInterval(timer));
    this.load();
    return this;
  }

  once() {
    this.load();
    return this;
  }

  /** The designed state, or what `build(data)` makes of the data. */
  view(build, lines = 6) {
    const retry = () => this.load();
    if (this.data === null) return this.problem ? problemPanel(this.problem, retry) : skeleton(lines);
    const old = this.problem
      ? h("div", { class: "strip warn", role: "status", key: `${this.name}-old`, "data-test": "old" }, "Could not be read again: ", this.problem.message, " Shown is what was read ", this.atMs ? time(this.atMs) : "before", ".")
      : null;
    return [old, build(this.data)];
  }
}
