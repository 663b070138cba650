// @ts-check
// Text of numbers, times and labels, and one helper to build elements.

/** @typedef {Record<string, string>} Labels */

/**
 * el makes an element; strings among the children become text, never HTML.
 * @param {string} tag
 * @param {Record<string, string>} [attributes]
 * @param {...(Node|string)} children
 * @returns {HTMLElement}
 */
export function el(tag, attributes = {}, ...children) {
  const e = document.createElement(tag);
  for (const [k, v] of Object.entries(attributes)) e.setAttribute(k, v);
  e.append(...children);
  return e;
}

/**
 * svg makes an SVG element.
 * @param {string} tag
 * @param {Record<string, string|number>} [attributes]
 * @param {...(Node|string)} children
 */
export function svg(tag, attributes = {}, ...children) {
  const e = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [k, v] of Object.entries(attributes)) e.setAttribute(k, String(v));
  e.append(...children);
  return e;
}

/**
 * table makes a table from rows of cells; a cell is text or a node, with a class from classes by column.
 * @param {string[]} heads
 * @param {(Node|string)[][]} rows
 * @param {string[]} [classes]
 */
export function table(heads, rows, classes = []) {
  /** @type {(i: number) => Record<string, string>} */
  const cls = (i) => (classes[i] ? { class: classes[i] } : {});
  return el("div", { class: "scroll" }, el("table", {},
    el("thead", {}, el("tr", {}, ...heads.map((h, i) => el("th", { scope: "col", ...cls(i) }, h)))),
    el("tbody", {}, ...rows.map((row) => el("tr", {}, ...row.map((c, i) => el("td", cls(i), c)))))));
}

const legacy = /^[a-zA-Z_][a-zA-Z0-9_]*$/;
const legacyMetric = /^[a-zA-Z_:][a-zA-Z0-9_:]*$/;

/**
 * series writes labels as PromQL does.
 * @param {Labels} labels
 */
export function series(labels) {
  const name = labels.__name__ ?? "";
  const inner = Object.keys(labels).filter((k) => k !== "__name__").sort()
    .map((k) => `${legacy.test(k) ? k : JSON.stringify(k)}=${JSON.stringify(labels[k])}`);
  if (name && !legacyMetric.test(name)) inner.unshift(JSON.stringify(name));
  const shown = legacyMetric.test(name) ? name : "";
  return inner.length || !shown ? `${shown}{${inner.join(", ")}}` : shown;
}

const prefixes = ["y", "z", "a", "f", "p", "n", "µ", "m", "", "k", "M", "G", "T", "P", "E", "Z", "Y"];

/**
 * short writes a number for an axis, with an SI prefix. step, the distance of the axis's ticks, decides the digits.
 * @param {number} v
 * @param {number} step
 */
export function short(v, step) {
  if (!Number.isFinite(v)) return value(v);
  const top = Math.max(Math.abs(v), Math.abs(step));
  if (Math.abs(v) < Math.abs(step) / 1e6 || top === 0) return "0";
  let power = Math.floor(Math.log10(Math.abs(v)) / 3);
  if (power === -1 && Math.abs(v) >= 0.01) power = 0; // 0.25 reads better than 250m
  power = Math.max(-8, Math.min(8, power));
  const unit = 10 ** (3 * power);
  const digits = Math.max(0, Math.min(6, -Math.floor(Math.log10(step / unit) + 1e-9)));
  return (v / unit).toFixed(digits) + prefixes[power + 8];
}

/**
 * value writes a number in full, as Prometheus does its special ones.
 * @param {number} v
 */
export function value(v) {
  if (v === Infinity) return "+Inf";
  if (v === -Infinity) return "-Inf";
  return String(v);
}

const units = /** @type {[string, number][]} */ ([["w", 604800], ["d", 86400], ["h", 3600], ["m", 60], ["s", 1], ["ms", 0.001]]);

/**
 * duration writes seconds as Prometheus does: 1h30m.
 * @param {number} seconds
 */
export function duration(seconds) {
  if (seconds <= 0) return "0s";
  let rest = Math.round(seconds * 1000) / 1000, out = "";
  for (const [unit, size] of units) {
    const n = Math.floor(rest / size + 1e-9);
    if (n > 0) {
      out += n + unit;
      rest = Math.round((rest - n * size) * 1000) / 1000;
    }
  }
  return out || "0s";
}

/**
 * parseDuration reads what duration writes; NaN for anything else.
 * @param {string} text
 */
export function parseDuration(text) {
  if (!/^(\d+(ms|y|w|d|h|m|s))+$/.test(text)) return NaN;
  let sum = 0;
  for (const [, n, unit] of text.matchAll(/(\d+)(ms|y|w|d|h|m|s)/g)) {
    sum += Number(n) * (unit === "y" ? 365 * 86400 : Object.fromEntries(units)[unit]);
  }
  return sum;
}

/**
 * ago writes how long before now a time was.
 * @param {number} ms
 */
export function ago(ms) {
  const s = Math.max(0, Math.round((Date.now() - ms) / 1000));
  if (s < 60) return `${s}s ago`;
  if (s < 3600) return `${Math.floor(s / 60)}m ago`;
  if (s < 172800) return `${Math.floor(s / 3600)}h ago`;
  return `${Math.floor(s / 86400)}d ago`;
}

const two = (/** @type {number} */ n) => String(n).padStart(2, "0");

/**
 * time writes a moment in the browser's time zone.
 * @param {Date} d
 */
export function time(d) {
  return `${d.getFullYear()}-${two(d.getMonth() + 1)}-${two(d.getDate())} ${two(d.getHours())}:${two(d.getMinutes())}:${two(d.getSeconds())}`;
}
