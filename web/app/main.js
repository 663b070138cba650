// @ts-check
// The page: the query box, the address bar, and what is refreshed.

import { call, getTenant, keep, recall, setTenant } from "./api.js";
import { showCluster, showSnippet } from "./cluster.js";
import { Completion } from "./complete.js";
import { duration, el, parseDuration } from "./format.js";
import { graph } from "./graph.js";
import { empty, messages, resultTable } from "./results.js";

/**
 * @template {HTMLElement} T
 * @param {string} id
 * @returns {T}
 */
const byId = (id) => /** @type {T} */ (document.getElementById(id));
const box = /** @type {HTMLTextAreaElement} */ (byId("expr"));
const tenantBox = /** @type {HTMLInputElement} */ (byId("tenant"));
const panel = byId("panel"), status = byId("status"), ranges = byId("ranges");
const completion = new Completion(box, byId("suggestions"));
const rangeChoices = ["15m", "1h", "6h", "1d", "1w"];
const refreshEvery = 15_000;

/** The address bar's state. */
const state = { expr: "", range: "1h", tab: "graph" };
let running = new AbortController();
/** @type {(() => void)|undefined} redraw draws the last graph again, at another width */
let redraw;

function readAddress() {
  const q = new URLSearchParams(location.search);
  state.expr = q.get("expr") ?? "";
  state.range = parseDuration(q.get("range") ?? "") > 0 ? /** @type {string} */ (q.get("range")) : "1h";
  state.tab = q.get("tab") === "table" ? "table" : "graph";
  box.value = state.expr;
  fitBox();
}

function writeAddress() {
  const q = new URLSearchParams({ expr: state.expr, range: state.range });
  if (state.tab === "table") q.set("tab", "table");
  const search = `?${q}`;
  if (search !== location.search) history.pushState(null, "", search);
  document.title = state.expr ? `${state.expr.slice(0, 60)} · Hearth` : "Hearth";
}

/** showChoices marks the chosen tab and range; a range from the address that is no choice becomes one. */
function showChoices() {
  for (const tab of ["graph", "table"]) {
    const button = byId(`tab-${tab}`);
    button.setAttribute("aria-selected", String(state.tab === tab));
    button.tabIndex = state.tab === tab ? 0 : -1;
  }
  ranges.hidden = state.tab !== "graph";
  const choices = rangeChoices.includes(state.range) ? rangeChoices : [...rangeChoices, state.range];
  ranges.querySelectorAll("button").forEach((b) => b.remove());
  for (const range of choices) {
    const button = el("button", { type: "button", "aria-pressed": String(range === state.range) }, range);
    button.addEventListener("click", () => {
      state.range = range;
      run();
      const again = /** @type {HTMLElement|null} */ (ranges.querySelector('[aria-pressed="true"]'));
      again?.focus();
    });
    ranges.append(button);
  }
}

const roundSteps = [1, 2, 5, 10, 15, 20, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 21600, 43200, 86400];

/** autoStep gives a graph about as many samples as it can show. */
function autoStep(/** @type {number} */ seconds) {
  const least = seconds / 300;
  return roundSteps.find((s) => s >= least) ?? Math.ceil(least / 86400) * 86400;
}

/** run asks the server for what the address says and shows the answer. */
async function run() {
  showChoices();
  writeAddress();
  running.abort();
  if (!state.expr.trim()) return show([], empty("Type an expression and press Enter."), "");
  const mine = running = new AbortController();
  panel.classList.add("busy");
  status.textContent = "running …";
  const began = performance.now();
  try {
    const shown = state.tab === "graph" ? await runRange(mine.signal) : await runInstant(mine.signal);
    if (mine !== running) return;
    show(shown.messages, shown.element, `${shown.summary} · ${Math.round(performance.now() - began)} ms`);
  } catch (error) {
    if (mine !== running) return;
    redraw = undefined;
    show(messages({ error }), el("div"), "");
  }
}

/** runRange is the graph's query. */
async function runRange(/** @type {AbortSignal} */ signal) {
  const length = parseDuration(state.range), step = autoStep(length), end = Math.floor(Date.now() / 1000);
  const w = { start: end - length, end, step };
  const { data, warnings, infos } = await call("query_range", { query: state.expr, start: String(w.start), end: String(w.end), step: String(step) }, signal);
  const draw = () => graph(data.result, w, Math.max(320, panel.clientWidth));
  const { element, notes } = draw();
  redraw = () => panel.replaceChildren(draw().element);
  if (data.result.length === 0) redraw = undefined;
  return {
    element: data.result.length === 0 ? empty("No series match in this range.") : element,
    messages: messages({ warnings, infos, notes }),
    summary: `${count(data.result.length)} · step ${duration(step)}`,
  };
}

/** runInstant is the table's query. */
async function runInstant(/** @type {AbortSignal} */ signal) {
  const { data, warnings, infos } = await call("query", { query: state.expr, time: String(Date.now() / 1000) }, signal);
  redraw = undefined;
  const { element, notes } = resultTable(data);
  const listed = data.resultType === "vector" || data.resultType === "matrix";
  return { element, messages: messages({ warnings, infos, notes }), summary: listed ? count(data.result.length) : data.resultType };
}

const count = (/** @type {number} */ n) => `${n} series`;

function show(/** @type {HTMLElement[]} */ said, /** @type {HTMLElement} */ element, /** @type {string} */ summary) {
  panel.classList.remove("busy");
  byId("messages").replaceChildren(...said);
  panel.replaceChildren(element);
  status.textContent = summary;
}

/** fitBox makes the query box as high as its text. */
function fitBox() {
  box.style.height = "auto";
  box.style.height = `${box.scrollHeight + 2}px`;
}

function submit() {
  completion.close();
  state.expr = box.value;
  run();
}

function chooseTab(/** @type {string} */ tab) {
  state.tab = tab;
  state.expr = box.value;
  run();
  byId(`tab-${tab}`).focus();
}

const themes = ["", "light", "dark"];

function showTheme(/** @type {string} */ theme) {
  if (theme) document.documentElement.dataset.theme = theme;
  else delete document.documentElement.dataset.theme;
  byId("theme").textContent = theme ? theme[0].toUpperCase() + theme.slice(1) : "Auto";
}

function listen() {
  byId("query").addEventListener("submit", (event) => {
    event.preventDefault();
    submit();
  });
  box.addEventListener("keydown", (event) => {
    if (event.isComposing) return;
    if (completion.key(event)) event.preventDefault();
    else if (event.key === "Enter" && !event.shiftKey) {
      event.preventDefault();
      submit();
    }
  });
  for (const kind of ["input", "change"]) box.addEventListener(kind, fitBox);
  for (const [tab, other] of [["graph", "table"], ["table", "graph"]]) {
    byId(`tab-${tab}`).addEventListener("click", () => chooseTab(tab));
    byId(`tab-${tab}`).addEventListener("keydown", (event) => {
      if (event.key === "ArrowLeft" || event.key === "ArrowRight") chooseTab(other);
    });
  }
  tenantBox.addEventListener("change", () => {
    setTenant(tenantBox.value.trim());
    completion.forget();
    showSnippet();
    showCluster();
    run();
  });
  byId("copy").addEventListener("click", copy);
  byId("theme").addEventListener("click", () => {
    const next = themes[(themes.indexOf(recall("hearth.theme")) + 1) % themes.length];
    keep("hearth.theme", next);
    showTheme(next);
  });
  window.addEventListener("popstate", () => {
    readAddress();
    run();
  });
  let width = panel.clientWidth;
  new ResizeObserver(() => {
    if (panel.clientWidth === width) return;
    width = panel.clientWidth;
    redraw?.();
  }).observe(panel);
}

/** copy works without a secure context too, where the page has no clipboard: it selects the text. */
async function copy() {
  const button = byId("copy"), text = byId("snippet");
  try {
    await navigator.clipboard.writeText(text.textContent ?? "");
    button.textContent = "Copied";
  } catch {
    getSelection()?.selectAllChildren(text);
    button.textContent = "Selected";
  }
  setTimeout(() => { button.textContent = "Copy"; }, 1500);
}

showTheme(themes.includes(recall("hearth.theme")) ? recall("hearth.theme") : "");
tenantBox.value = getTenant();
readAddress();
listen();
run();
showCluster();
setInterval(() => { if (!document.hidden) showCluster(); }, refreshEvery);
