// Values as people read them. A value that is not known is "–", never 0.

export const NOT_KNOWN = "–";

const whole = new Intl.NumberFormat("en-GB", { maximumFractionDigits: 0 });
const stamp = new Intl.DateTimeFormat("en-GB", { dateStyle: "medium", timeStyle: "medium" });

export const known = (value) => value !== null && value !== undefined && Number.isFinite(value);

export function count(value) {
  return known(value) ? whole.format(value) : NOT_KNOWN;
}

/** "1 record", "2 records": nouns come in the plural. */
export function things(value, nouns) {
  return `${count(value)} ${value === 1 ? nouns.replace(/s$/, "") : nouns}`;
}

/** A number with so many digits after the point, and never "-0". */
export function decimal(value, digits = 2) {
  if (!known(value)) return NOT_KNOWN;
  const text = value.toLocaleString("en-GB", { minimumFractionDigits: digits, maximumFractionDigits: digits });
  return /^-0[.0]*$/.test(text) ? text.slice(1) : text;
}

export function percent(ratio, digits = 1) {
  if (digits === 0 && ratio > 0 && ratio < 0.005) return "< 1 %";
  return known(ratio) ? `${decimal(ratio * 100, digits)} %` : NOT_KNOWN;
}

/** Accuracies are shown in percent, as long as they are shares. */
const shownInPercent = (name, value) => /accuracy/i.test(name) && Math.abs(value) <= 1.5;

/** A value of any metric: accuracies in percent, all else plain, with digits that say something. */
export function metric(name, value) {
  if (!known(value)) return NOT_KNOWN;
  return shownInPercent(name, value) ? percent(value) : quantity(value, 4);
}

/** A number of whatever size, with at most so many digits after the point. */
function quantity(value, digits) {
  const size = Math.abs(value);
  if (size !== 0 && (size < 0.001 || size >= 1e7)) return value.toExponential(2).replace("e+", "e");
  return decimal(value, size < 10 ? digits : Math.max(0, digits - Math.floor(Math.log10(size))));
}

export function rate(value) {
  return known(value) ? `${decimal(value, value > 0 && value < 100 ? 1 : 0)}/s` : NOT_KNOWN;
}

export function duration(seconds) {
  if (!known(seconds)) return NOT_KNOWN;
  if (seconds < 0.0005) return "0 s";
  if (seconds < 1) return `${decimal(seconds * 1000, 0)} ms`;
  if (seconds < 10 && !Number.isInteger(seconds)) return `${decimal(seconds, 1)} s`;
  if (seconds < 120) return `${decimal(seconds, 0)} s`;
  if (seconds < 7200) return `${decimal(seconds / 60, 0)} min`;
  if (seconds < 172800) return `${decimal(seconds / 3600, 0)} h`;
  return `${decimal(seconds / 86400, 0)} days`;
}

/** How long ago, in whole steps so that it does not flicker. */
export function ago(seconds) {
  if (!known(seconds)) return NOT_KNOWN;
  return seconds < 1 ? "just now" : `${duration(seconds < 10 ? Math.floor(seconds) : seconds)} ago`;
}

export function bytes(value) {
  if (!known(value)) return NOT_KNOWN;
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let size = value;
  let unit = 0;
  while (size >= 1024 && unit < units.length - 1) {
    size /= 1024;
    unit += 1;
  }
  return `${decimal(size, unit === 0 || size >= 100 ? 0 : 1)} ${units[unit]}`;
}

/** Money with its unit, as the price list has it, and two digits that say something. */
export function cost(value, currency) {
  if (!known(value)) return NOT_KNOWN;
  const digits = value === 0 ? 0 : Math.min(10, Math.max(2, 1 - Math.floor(Math.log10(Math.abs(value)))));
  return currency ? `${decimal(value, digits)} ${currency}` : decimal(value, digits);
}

export function absolute(ms) {
  return known(ms) ? `${stamp.format(new Date(ms))} (${new Date(ms).toISOString()})` : NOT_KNOWN;
}

export function slot(region, partition) {
  return `${region}[${partition}]`;
}

export function place(region, partition, offset) {
  return `${region}[${partition}]@${offset}`;
}

/** `too_stale` as words. */
export function words(text) {
  return String(text ?? NOT_KNOWN).replaceAll("_", " ");
}

/** region[partition]@offset, or null. */
export function parsePlace(text) {
  const found = /^\s*([\w.-]+)\s*\[\s*(\d+)\s*\]\s*@\s*(\d+)\s*$/.exec(text);
  return found ? { region: found[1], partition: Number(found[2]), offset: Number(found[3]) } : null;
}
