// @ts-check
// Suggestions of metric names and functions in the query box: arrow keys choose, Tab or Enter takes, Escape closes.

import { metricNames } from "./api.js";
import { el } from "./format.js";

const functions = ("abs absent absent_over_time avg avg_over_time bottomk ceil changes clamp clamp_max clamp_min count count_over_time " +
  "count_values day_of_month day_of_week delta deriv exp floor group histogram_avg histogram_count histogram_fraction histogram_quantile " +
  "histogram_sum hour idelta increase irate label_join label_replace last_over_time ln log10 log2 max max_over_time min min_over_time " +
  "minute month predict_linear present_over_time quantile quantile_over_time rate resets round scalar sgn sort sort_by_label sort_desc " +
  "sqrt stddev stddev_over_time stdvar stdvar_over_time sum sum_over_time time timestamp topk vector year").split(" ");
const maxShown = 60, fresh = 30_000;

/** @typedef {{text: string, what: string}} Suggestion */

/**
 * rank orders the candidates that contain word: beginnings first, then shorter ones.
 * @param {string} word
 * @param {string[]} names
 * @returns {Suggestion[]}
 */
export function rank(word, names) {
  const w = word.toLowerCase();
  const score = (/** @type {string} */ s) => (s.toLowerCase().startsWith(w) ? 0 : 1);
  const pick = (/** @type {string[]} */ list, /** @type {string} */ what) =>
    list.filter((s) => s.toLowerCase().includes(w)).map((text) => ({ text, what }));
  return [...pick(names, "metric"), ...pick(functions, "function")]
    .sort((a, b) => score(a.text) - score(b.text) || a.text.length - b.text.length || (a.text < b.text ? -1 : 1))
    .slice(0, maxShown);
}

/** wordAt is the name that ends at the caret; "" within a string or braces, where no metric is meant. */
export function wordAt(/** @type {string} */ text, /** @type {number} */ caret) {
  const before = text.slice(0, caret).replace(/"(\\.|[^"\\])*"|'(\\.|[^'\\])*'/g, "_");
  if (/["']/.test(before) || before.lastIndexOf("{") > before.lastIndexOf("}") || before.lastIndexOf("[") > before.lastIndexOf("]")) return "";
  return /[a-zA-Z_:][a-zA-Z0-9_:]*$/.exec(before)?.[0] ?? "";
}

/** Completion drives the list below a text box. */
export class Completion {
  /**
   * @param {HTMLTextAreaElement} box
   * @param {HTMLElement} list
   */
  constructor(box, list) {
    this.box = box;
    this.list = list;
    /** @type {string[]} */
    this.names = [];
    this.fetched = 0;
    /** @type {Suggestion[]} */
    this.shown = [];
    this.chosen = -1;
    this.typed = false; // since the list was last closed: names that arrive late still show
    box.addEventListener("focus", () => this.refresh());
    box.addEventListener("input", () => {
      this.typed = true;
      this.refresh();
      this.suggest();
    });
    box.addEventListener("blur", () => this.close());
    list.addEventListener("pointerdown", (event) => {
      event.preventDefault(); // keep the box's focus
      const item = /** @type {HTMLElement} */ (event.target).closest("li");
      if (item) this.take(Number(item.dataset.index));
    });
  }

  /** forget makes the next focus or input fetch the names again: the tenant changed. */
  forget() {
    this.names = [];
    this.fetched = 0;
    if (document.activeElement === this.box) this.refresh();
  }

  async refresh() {
    if (Date.now() - this.fetched < fresh) return;
    this.fetched = Date.now();
    try {
      this.names = await metricNames();
      if (this.typed) this.suggest();
    } catch {
      this.fetched = 0; // the query itself will say what is wrong
    }
  }

  suggest() {
    const word = wordAt(this.box.value, this.box.selectionStart);
    const found = word.length < 2 ? [] : rank(word, this.names);
    if (found.length === 0 || (found.length === 1 && found[0].text === word)) return this.hide();
    this.shown = found;
    this.list.replaceChildren(...found.map((s, i) => el("li", { id: `suggestion-${i}`, role: "option", "aria-selected": "false", "data-index": String(i) },
      el("span", {}, s.text), el("span", { class: "dim" }, s.what))));
    this.list.hidden = false;
    this.box.setAttribute("aria-expanded", "true");
    this.choose(-1);
  }

  choose(/** @type {number} */ i) {
    this.chosen = i;
    this.list.querySelectorAll("li").forEach((item, j) => {
      item.setAttribute("aria-selected", String(i === j));
      if (i === j) item.scrollIntoView({ block: "nearest" });
    });
    if (i >= 0) this.box.setAttribute("aria-activedescendant", `suggestion-${i}`);
    else this.box.removeAttribute("aria-activedescendant");
  }

  take(/** @type {number} */ i) {
    const caret = this.box.selectionStart, word = wordAt(this.box.value, caret), s = this.shown[i];
    let end = caret;
    while (/[a-zA-Z0-9_:]/.test(this.box.value[end] ?? "")) end++; // the rest of a word that the caret is in
    const call = s.what === "function" && this.box.value[end] !== "(" ? "(" : "";
    this.box.setRangeText(s.text + call, caret - word.length, end, "end");
    this.close();
    this.box.dispatchEvent(new Event("change", { bubbles: true }));
  }

  close() {
    this.typed = false;
    this.hide();
  }

  hide() {
    this.list.hidden = true;
    this.shown = [];
    this.chosen = -1;
    this.box.setAttribute("aria-expanded", "false");
    this.box.removeAttribute("aria-activedescendant");
  }

  /** key handles a key and reports whether it was for the list. */
  key(/** @type {KeyboardEvent} */ event) {
    if (this.list.hidden) return false;
    const n = this.shown.length;
    switch (event.key) {
      case "ArrowDown": this.choose(this.chosen + 1 >= n ? -1 : this.chosen + 1); return true;
      case "ArrowUp": this.choose(this.chosen < 0 ? n - 1 : this.chosen - 1); return true;
      case "Tab": if (event.shiftKey) return false; this.take(Math.max(0, this.chosen)); return true;
      case "Enter": if (this.chosen < 0 || event.shiftKey) return false; this.take(this.chosen); return true;
      case "Escape": this.close(); return true;
    }
    return false;
  }
}
