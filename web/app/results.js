// @ts-check
// The table of an instant query, and what the server said beside its data.

import { Failure } from "./api.js";
import { el, series, table, time } from "./format.js";

const maxRows = 2000;

/**
 * resultTable shows any type of instant result.
 * @param {import("./api.js").QueryData} data
 * @returns {{element: HTMLElement, notes: string[]}}
 */
export function resultTable(data) {
  if (data.resultType === "scalar" || data.resultType === "string") {
    return { element: table([data.resultType], [[data.result[1]]], ["mono"]), notes: [] };
  }
  const rows = data.result ?? [];
  const notes = rows.length > maxRows ? [`The table shows the first ${maxRows} of ${rows.length} series.`] : [];
  if (rows.length === 0) return { element: empty("No series match."), notes };
  const cells = rows.slice(0, maxRows).map((/** @type {any} */ s) => [series(s.metric), sample(s)]);
  return { element: table(["Series", "Value"], cells, ["mono", data.resultType === "vector" ? "number" : "mono"]), notes };
}

/** sample writes the value of a vector's element, or all samples of a matrix's. */
function sample(/** @type {any} */ s) {
  if (s.value) return s.value[1];
  if (s.histogram) return histogram(s.histogram[1]);
  const lines = (s.values ?? []).map((/** @type {[number, string]} */ [t, v]) => el("div", {}, `${v} @ ${time(new Date(t * 1000))}`));
  for (const [t, h] of s.histograms ?? []) lines.push(el("div", {}, histogram(h), ` @ ${time(new Date(t * 1000))}`));
  return el("div", {}, ...lines);
}

const brackets = [["(", "]"], ["[", ")"], ["(", ")"], ["[", "]"]];

/**
 * histogram writes a native histogram.
 * @param {{count: string, sum: string, buckets?: [number, string, string, string][]}} h
 */
function histogram(h) {
  const head = `count ${h.count}, sum ${h.sum}`;
  if (!h.buckets?.length) return el("span", {}, head);
  const rows = h.buckets.map(([kind, low, high, n]) => [`${brackets[kind][0]}${low}, ${high}${brackets[kind][1]}`, n]);
  return el("details", {}, el("summary", {}, head), table(["Bucket", "Count"], rows, ["mono", "number"]));
}

/** empty is what a panel without data says. */
export const empty = (/** @type {string} */ text) => el("p", { class: "empty" }, text);

/**
 * messages are the server's words, unchanged, and the page's own notes.
 * @param {{warnings?: string[], infos?: string[], notes?: string[], error?: unknown}} said
 */
export function messages({ warnings = [], infos = [], notes = [], error }) {
  const out = [];
  if (error instanceof Failure) {
    out.push(el("p", { class: "message error", role: "alert" }, el("b", {}, error.type), error.message));
  } else if (error) {
    out.push(el("p", { class: "message error", role: "alert" }, el("b", {}, "No answer"), error instanceof Error ? error.message : String(error)));
  }
  for (const w of warnings) out.push(el("p", { class: "message warning" }, el("b", {}, "Warning"), w));
  for (const i of [...infos, ...notes]) out.push(el("p", { class: "message info" }, el("b", {}, "Note"), i));
  return out;
}
