// Line charts by uPlot in an element of their own, which keeps its canvas while the page around it is brought up to date.

import { h } from "./dom.js";
import { behind, card } from "./widgets.js";
import uPlot from "./vendor/uplot-1.6.32/uPlot.esm.js";

const HEIGHT_PX = 200;
const POINTS_SHOWN_MAX = 40;

/** A custom property's colour as the canvas needs it: resolved, for the theme of now. */
function colour(name) {
  const probe = document.createElement("span");
  probe.style.color = `var(${name})`;
  document.body.append(probe);
  const resolved = getComputedStyle(probe).color;
  probe.remove();
  return resolved;
}

/**
 * `spec`: {id, x: [number], series: [{label, values: [number | null], color: "--name", dash: [px] or null, fill}],
 * format: (y) => text, xFormat: (x) => text, range: [min, max] or null, pick: (index) => void or null}. A series with
 * `dots` is single points and no line.
 * Another `id` builds the chart anew, the same one only sets its data.
 */
class Chart extends HTMLElement {
  #spec = null;
  #plot = null;
  #built = "";

  set spec(spec) {
    this.#spec = spec;
    if (this.isConnected) this.#refresh();
  }

  get spec() {
    return this.#spec;
  }

  connectedCallback() {
    this.readout = h("p", { class: "readout" });
    this.append(this.readout);
    this.sizes = new ResizeObserver(() => this.#plot?.setSize({ width: this.clientWidth, height: HEIGHT_PX }));
    this.sizes.observe(this);
    this.retheme = () => this.#refresh(true);
    document.addEventListener("fluvial-theme", this.retheme);
    this.#refresh();
  }

  disconnectedCallback() {
    document.removeEventListener("fluvial-theme", this.retheme);
    this.sizes.disconnect();
    this.#plot?.destroy();
    this.#plot = null;
    this.#built = "";
    this.replaceChildren();
  }

  #refresh(anew = false) {
    const spec = this.#spec;
    if (!spec) return;
    const data = [spec.x, ...spec.series.map((one) => one.values)];
    const few = spec.x.length <= POINTS_SHOWN_MAX;
    const built = `${spec.id} ${few} ${spec.series.map((one) => one.label)}`;
    if (anew || built !== this.#built) {
      this.#plot?.destroy();
      this.#built = built;
      this.#plot = new uPlot(this.#options(few), data, this);
    } else {
      this.#plot.setData(data);
    }
  }

  #options(few) {
    const spec = this.#spec;
    const axis = { stroke: colour("--muted"), grid: { stroke: colour("--line-faint"), width: 1 }, ticks: { show: false }, font: "11px system-ui, sans-serif" };
    return {
      width: this.clientWidth || 300,
      height: HEIGHT_PX,
      padding: [10, 22, 0, 0],
      legend: { show: false },
      cursor: { points: { size: 7 }, drag: { x: false, y: false }, y: false },
      scales: { x: { time: false }, y: { range: spec.range ? () => spec.range : (_, low, high) => padded(low, high, spec.floor) } },
      axes: [
        { ...axis, size: 28, values: (_, ticks) => ticks.map((tick) => this.#spec.xFormat(tick)), incrs: spec.xIncrs },
        { ...axis, size: 56, values: (_, ticks) => trimmed(ticks.map((tick) => this.#spec.format(tick))) },
      ],
      series: [
        {},
        ...spec.series.map((one) => ({
          label: one.label,
          stroke: colour(one.color),
          width: 1.75,
          dash: one.dash ?? undefined,
          fill: one.fill ? colour(one.fill) : undefined,
          points: one.dots ? { show: true, size: 9, fill: colour(one.color) } : { show: few, size: 5 },
        })),
      ],
      hooks: { setCursor: [(plot) => this.#say(plot.cursor.idx)], ready: [(plot) => this.#pickable(plot)] },
    };
  }

  #say(index) {
    const spec = this.#spec;
    const shown = index !== null && index !== undefined && spec.x[index] !== undefined;
    this.readout.textContent = shown
      ? `${spec.xName ?? ""} ${spec.xFormat(spec.x[index])}: ${spec.series.filter((one) => !one.dots || one.values[index] !== null).map((one) => (one.dots ? one.label.split(":")[0] : `${one.label} ${spec.format(one.values[index])}`)).join(", ")}`
      : "";
  }

  #pickable(plot) {
    if (!this.#spec.pick) return;
    plot.over.classList.add("pickable");
    plot.over.addEventListener("click", () => {
      if (plot.cursor.idx !== null) this.#spec.pick(plot.cursor.idx);
    });
  }
}
customElements.define("fluvial-chart", Chart);

/** Without the zeros after the point that all have: 80 %, and not 80.0 %. */
function trimmed(texts) {
  const digits = texts.map((text) => /\.(\d*?)0*(?!\d)/.exec(text)?.[1].length ?? 0);
  const kept = Math.max(0, ...digits);
  return texts.map((text) => text.replace(/\.(\d*)/, (_, all) => (kept ? `.${all.slice(0, kept)}` : "")));
}

/** Some air above and below, and no range of nothing. `floor`: the axis begins there. */
function padded(low, high, floor) {
  if (low === null || high === null || !Number.isFinite(low)) return [0, 1];
  const air = (high - low || Math.abs(high) || 1) * 0.08;
  return floor === undefined ? [low - air, high + air] : [floor, Math.max(high * 1.08, floor + 1)];
}

function legend(series) {
  if (series.length < 2) return null;
  return h(
    "ul",
    { class: "legend", "aria-hidden": "true" },
    series.map((one) =>
      h("li", null, h("span", { class: one.dash ? "swatch dashed" : "swatch", style: { "--swatch": `var(${one.color})` } }), one.label),
    ),
  );
}

/** A chart with its window in words, `note` on it, and the table behind it. `build` makes that table; none where there is nothing yet. */
export function chartCard(ctx, { id, title, window, note = null, actions, spec, build, empty, wide = false }) {
  const enough = spec.x.length >= 2;
  return card(
    title,
    { id, note: note ? [window, "; ", note] : window, actions, wide },
    enough
      ? [
          legend(spec.series),
          h("fluvial-chart", { key: `${id}-chart`, spec, role: "img", "aria-label": `${title}. ${window}. ${summary(spec)} The numbers are in the table below.` }),
        ]
      : h("p", { class: "note empty-chart", key: "none" }, empty ?? "Fewer than two points so far; the chart begins with the second."),
    build ? behind(ctx, id, build) : null,
  );
}

const titledLabel = (text) => text.charAt(0).toUpperCase() + text.slice(1);

function summary(spec) {
  return spec.series
    .map((one) => {
      if (one.dots) return `${titledLabel(one.label)}.`;
      const values = one.values.filter((value) => value !== null && value !== undefined);
      return values.length ? `${one.label}: from ${spec.format(values[0])} to ${spec.format(values.at(-1))}.` : `${one.label}: not known.`;
    })
    .join(" ");
}
