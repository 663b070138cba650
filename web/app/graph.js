// @ts-check
// A line graph of a range query's matrix, as SVG.

import { el, short, series, svg, time, value } from "./format.js";

/** @typedef {{labels: Record<string, string>, points: Map<number, number>, color: string}} Line points by step index */
/** @typedef {{start: number, end: number, step: number}} Window seconds */
/** @typedef {{lines: Line[], min: number, max: number}} Drawn */

const maxLines = 200; // more are not told apart, and slow
const height = 320, top = 10, right = 12, bottom = 26, left = 58;

/** color gives neighbours in the list hues far apart that read on light and dark. */
const color = (/** @type {number} */ i) => `hsl(${(20 + i * 137.508) % 360} ${i % 2 ? 58 : 72}% ${[50, 58, 44][i % 3]}%)`;

/**
 * ticks are about n round numbers from min to max.
 * @param {number} min
 * @param {number} max
 * @param {number} n
 */
export function ticks(min, max, n) {
  const rough = (max - min) / n, power = 10 ** Math.floor(Math.log10(rough));
  const step = power * ([1, 2, 5, 10].find((f) => f * power >= rough) ?? 10);
  const out = [];
  for (let i = Math.ceil(min / step - 1e-9); i * step <= max + step * 1e-9; i++) out.push(i * step);
  return { step, values: out };
}

const timeSteps = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200, 86400, 172800, 604800, 1209600];

/**
 * timeTicks are round local times within a window, in seconds.
 * @param {Window} w
 * @param {number} n
 */
function timeTicks(w, n) {
  const step = timeSteps.find((s) => s >= (w.end - w.start) / n) ?? 2419200;
  const offset = new Date(w.start * 1000).getTimezoneOffset() * 60;
  const out = [];
  for (let t = Math.ceil((w.start - offset) / step) * step + offset; t <= w.end; t += step) out.push(t);
  return { step, values: out };
}

/** clock writes a tick of the time axis. */
function clock(/** @type {number} */ t, /** @type {number} */ step) {
  const text = time(new Date(t * 1000)), day = text.slice(5, 10), hm = text.slice(11, 16);
  if (step >= 86400) return day;
  if (step < 60) return text.slice(11);
  return hm === "00:00" ? day : hm;
}

/**
 * linesOf reads a matrix.
 * @param {any[]} matrix
 * @param {Window} w
 * @returns {Drawn}
 */
function linesOf(matrix, w) {
  let min = Infinity, max = -Infinity;
  const lines = matrix.filter((s) => s.values?.length).slice(0, maxLines).map((s, i) => {
    const points = new Map();
    for (const [t, text] of s.values) {
      const v = Number(text.replace("Inf", "Infinity"));
      points.set(Math.round((t - w.start) / w.step), v);
      if (Number.isFinite(v)) {
        min = Math.min(min, v);
        max = Math.max(max, v);
      }
    }
    return { labels: s.metric, points, color: color(i) };
  });
  if (min > max) [min, max] = [0, 1];
  if (min === max) [min, max] = min === 0 ? [-1, 1] : [min - Math.abs(min) / 2, max + Math.abs(max) / 2];
  if (min > 0 && min < 0.35 * max) min = 0; // near enough: a true zero line reads better
  return { lines, min, max };
}

/**
 * graph draws a matrix. What it leaves out it says in notes.
 * @param {any[]} matrix
 * @param {Window} w
 * @param {number} width in pixels
 * @returns {{element: HTMLElement, notes: string[]}}
 */
export function graph(matrix, w, width) {
  const notes = [];
  const histograms = matrix.filter((s) => s.histograms?.length).length;
  if (histograms) notes.push(`${histograms} series are native histograms: see the table, or use histogram_quantile().`);
  const floats = matrix.length - matrix.filter((s) => !s.values?.length).length;
  if (floats > maxLines) notes.push(`The graph shows the first ${maxLines} of ${floats} series.`);

  const d = linesOf(matrix, w);
  const x = (/** @type {number} */ t) => left + ((t - w.start) / (w.end - w.start)) * (width - left - right);
  const padding = (d.max - d.min) * 0.04, low = d.min === 0 ? 0 : d.min - padding, high = d.max + padding;
  const y = (/** @type {number} */ v) => height - bottom - ((v - low) / (high - low)) * (height - top - bottom);

  const picture = svg("svg", { viewBox: `0 0 ${width} ${height}`, width, height, role: "img", "aria-label": `Graph of ${d.lines.length} series` });
  axes(picture, w, width, ticks(low, high, 6), x, y);
  const paths = d.lines.map((line) => svg("path", { d: pathOf(line, w, x, y), stroke: line.color }));
  picture.append(...paths);
  const element = el("div", { class: "graph" });
  element.append(picture);
  const legend = legendOf(element, d.lines, paths);
  hover(element, picture, { d, w, width, x, y, paths, legend });
  element.append(legend.list);
  return { element, notes };
}

/**
 * @param {Element} picture
 * @param {Window} w
 * @param {number} width
 * @param {{step: number, values: number[]}} vertical
 * @param {(t: number) => number} x
 * @param {(v: number) => number} y
 */
function axes(picture, w, width, vertical, x, y) {
  for (const v of vertical.values) {
    const at = y(v).toFixed(1);
    picture.append(svg("line", { class: "grid", x1: left, x2: width - right, y1: at, y2: at }));
    picture.append(svg("text", { x: left - 8, y: Number(at) + 4, "text-anchor": "end" }, short(v, vertical.step)));
  }
  const horizontal = timeTicks(w, Math.max(2, Math.floor(width / 110)));
  for (const t of horizontal.values) {
    const at = x(t).toFixed(1);
    picture.append(svg("line", { class: "grid", x1: at, x2: at, y1: top, y2: height - bottom }));
    picture.append(svg("text", { x: at, y: height - 8, "text-anchor": "middle" }, clock(t, horizontal.step)));
  }
}

/**
 * pathOf draws a line, broken where samples are missing; a lone sample is a dot.
 * @param {Line} line
 * @param {Window} w
 * @param {(t: number) => number} x
 * @param {(v: number) => number} y
 */
function pathOf(line, w, x, y) {
  let out = "", previous = NaN;
  for (const [i, v] of line.points) {
    if (!Number.isFinite(v)) continue;
    const at = `${x(w.start + i * w.step).toFixed(1)} ${y(v).toFixed(1)}`;
    const next = line.points.get(i + 1);
    if (i === previous + 1) out += `L${at}`;
    else out += next !== undefined && Number.isFinite(next) ? `M${at}` : `M${at}h1.5`;
    previous = i;
  }
  return out;
}

/**
 * legendOf lists the lines; pressing one shows it alone.
 * @param {HTMLElement} element
 * @param {Line[]} lines
 * @param {Element[]} paths
 */
function legendOf(element, lines, paths) {
  const list = el("ul", { class: "legend", "aria-label": "Series" });
  /** @type {HTMLElement[]} */
  const values = [];
  let picked = -1;
  const buttons = lines.map((line, i) => {
    const swatch = el("span", { class: "swatch" });
    swatch.style.background = line.color;
    values.push(el("span", { class: "dim" }));
    const button = el("button", { type: "button", "aria-pressed": "false" }, swatch, el("span", { class: "name" }, series(line.labels)), values[i]);
    button.addEventListener("click", () => {
      picked = picked === i ? -1 : i;
      element.classList.toggle("picked", picked >= 0);
      buttons.forEach((b, j) => b.setAttribute("aria-pressed", String(j === picked)));
      paths.forEach((p, j) => p.classList.toggle("on", j === picked));
    });
    list.append(el("li", {}, button));
    return button;
  });
  return { list, values, picked: () => picked };
}

/**
 * hover shows the values at the pointer's time, and the name of the nearest line.
 * @param {HTMLElement} element
 * @param {Element} picture
 * @param {{d: Drawn, w: Window, width: number, x: (t: number) => number, y: (v: number) => number, paths: Element[],
 *   legend: {values: HTMLElement[], picked: () => number}}} g
 */
function hover(element, picture, g) {
  const cursor = svg("line", { class: "cursor", y1: top, y2: height - bottom, visibility: "hidden" });
  const dot = svg("circle", { r: 4, visibility: "hidden" });
  const tip = el("div", { class: "tip", hidden: "" });
  picture.append(cursor, dot);
  element.append(tip);
  const leave = () => {
    tip.hidden = true;
    cursor.setAttribute("visibility", "hidden");
    dot.setAttribute("visibility", "hidden");
    for (const v of g.legend.values) v.textContent = "";
    if (g.legend.picked() < 0) for (const p of g.paths) p.classList.remove("on");
  };
  picture.addEventListener("pointerleave", leave);
  picture.addEventListener("pointermove", (event) => {
    const box = picture.getBoundingClientRect(), scale = g.width / box.width;
    const px = (/** @type {PointerEvent} */ (event).clientX - box.left) * scale, py = (/** @type {PointerEvent} */ (event).clientY - box.top) * scale;
    const last = Math.round((g.w.end - g.w.start) / g.w.step);
    const i = Math.max(0, Math.min(last, Math.round(((px - left) / (g.width - left - right)) * ((g.w.end - g.w.start) / g.w.step))));
    const at = g.w.start + i * g.w.step;
    cursor.setAttribute("x1", String(g.x(at)));
    cursor.setAttribute("x2", String(g.x(at)));
    cursor.setAttribute("visibility", "visible");
    const near = nearest(g, i, py);
    g.d.lines.forEach((line, j) => { g.legend.values[j].textContent = line.points.has(i) ? value(line.points.get(i) ?? NaN) : ""; });
    if (g.legend.picked() < 0) g.paths.forEach((p, j) => p.classList.toggle("on", j === near));
    tip.replaceChildren(el("div", { class: "dim" }, time(new Date(at * 1000))));
    dot.setAttribute("visibility", near < 0 ? "hidden" : "visible");
    if (near >= 0) {
      const line = g.d.lines[near], v = line.points.get(i) ?? NaN;
      dot.setAttribute("cx", String(g.x(at)));
      dot.setAttribute("cy", String(g.y(v)));
      dot.setAttribute("fill", line.color);
      tip.append(el("b", {}, value(v)), el("div", {}, series(line.labels)));
    }
    tip.hidden = false;
    const x = g.x(at) / scale;
    tip.style.top = "12px";
    tip.style.left = x > box.width / 2 ? "" : `${x + 14}px`;
    tip.style.right = x > box.width / 2 ? `${box.width - x + 14}px` : "";
  });
}

/**
 * nearest is the line that passes closest to a height at a step; -1 when none has a sample there.
 * @param {{d: Drawn, y: (v: number) => number, legend: {picked: () => number}}} g
 * @param {number} i
 * @param {number} py
 */
function nearest(g, i, py) {
  let best = -1, distance = Infinity;
  g.d.lines.forEach((line, j) => {
    const v = line.points.get(i);
    if (v === undefined || !Number.isFinite(v) || (g.legend.picked() >= 0 && g.legend.picked() !== j)) return;
    const d = Math.abs(g.y(v) - py);
    if (d < distance) [best, distance] = [j, d];
  });
  return best;
}
