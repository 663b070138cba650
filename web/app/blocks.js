// @ts-check
// The page of blocks: lanes by stream and resolution on a canvas, and a table of what is chosen.

import { Failure, recall, request } from "./api.js";
import { Lanes } from "./lanes.js";
import { el, series, table, time } from "./format.js";

/**
 * A block, as rows of api/v1/blocks/rows have it; stream is shared by all blocks with its labels.
 * @typedef {{id: string, min: number, max: number, level: number, res: number, stream: {labels: Record<string, string>,
 *   text: string, group: string}, source: string, series: number, samples: number, chunks: number, bytes: number,
 *   marks: number}} Block
 */

/**
 * @template {HTMLElement} T
 * @param {string} id
 * @returns {T}
 */
const byId = (id) => /** @type {T} */ (document.getElementById(id));
const view = /** @type {HTMLSelectElement} */ (byId("view"));
const resolution = /** @type {HTMLSelectElement} */ (byId("resolution"));
const marks = /** @type {HTMLSelectElement} */ (byId("marks"));
const search = /** @type {HTMLInputElement} */ (byId("search"));
const detail = /** @type {HTMLInputElement} */ (byId("detail"));
const refreshEvery = 60_000, mostInTable = 200;

/** @type {Block[]} */
let blocks = [];
/** @type {Block|undefined} */
let chosen;
let admin = false, version = -1;
const lanes = new Lanes(byId("lanes"), byId("height"), /** @type {HTMLCanvasElement} */ (byId("canvas")), show, showSpan);

/** load reads all pages of one listing; a listing that changes meanwhile is begun again. */
async function load() {
  for (let tries = 0; tries < 5; tries++) {
    /** @type {Block[]} */
    const got = [];
    /** @type {Map<string, Block["stream"]>} */
    const streams = new Map();
    let first, total = 1;
    while (got.length < total) {
      const { data } = await request(`api/v1/blocks/rows?view=${view.value}&from=${got.length}`);
      first ??= data;
      if (data.version !== first.version || data.rows.length === 0) break;
      total = data.total;
      const own = data.streams.map((/** @type {Record<string, string>} */ labels) => {
        const text = series(labels);
        const known = streams.get(text) ?? { labels, text, group: data.label ? labels[data.label] ?? "" : "" };
        streams.set(text, known);
        return known;
      });
      for (const r of data.rows) {
        got.push({ id: r[0], min: r[1], max: r[2], level: r[3], res: r[4], stream: own[r[5]], source: data.sources[r[6]],
          series: r[7], samples: r[8], chunks: r[9], bytes: r[10], marks: r[11] });
      }
    }
    if (first && (got.length >= first.total)) return { first, got };
  }
  throw new Error("The list of blocks changes faster than it can be read.");
}

async function refresh() {
  try {
    const { first, got } = await load();
    byId("state").textContent = `${first.total.toLocaleString()} blocks, seen ${time(new Date(first.refreshedAt))}`;
    fault(first.err ? `The bucket cannot be listed; this is what was listed before. ${first.err}` : "");
    admin = first.admin;
    if (first.version === version && got.length === blocks.length) return;
    version = first.version;
    blocks = got;
    filter();
  } catch (error) {
    fault(error instanceof Failure && error.status === 404 ? "This process lists no blocks." : String(error));
  }
}

function fault(/** @type {string} */ text) {
  byId("messages").replaceChildren(...(text ? [el("p", { class: "message error" }, text)] : []));
}

/** filter shows the blocks that the controls choose. */
function filter() {
  const words = search.value.trim().toLowerCase().split(/\s+/).filter(Boolean), bit = Number(marks.value);
  const shown = blocks.filter((b) => (resolution.value === "" || b.res === Number(resolution.value)) &&
    (bit === 0 || (b.marks & bit) !== 0) &&
    words.every((w) => b.id.toLowerCase().includes(w) || b.stream.text.toLowerCase().includes(w)));
  lanes.set(shown);
  const sum = (/** @type {"bytes"|"samples"} */ key) => shown.reduce((n, b) => n + b[key], 0);
  byId("list-title").textContent = `${shown.length.toLocaleString()} blocks, ${bytes(sum("bytes"))}, ${sum("samples").toLocaleString()} samples` +
    (shown.length > mostInTable ? `; the newest ${mostInTable}:` : "");
  const rows = shown.slice(-mostInTable).reverse().map((b) => {
    const pick = el("button", { type: "button", class: "mono" }, b.id);
    pick.addEventListener("click", () => show(b));
    return [pick, time(new Date(b.min)), time(new Date(b.max)), String(b.level), resolutionOf(b), b.stream.text, bytes(b.bytes), markText(b)];
  });
  byId("list").replaceChildren(table(["Block", "From", "Until", "Level", "Resolution", "Labels", "Size", "Marks"], rows,
    ["mono fixed", "fixed", "fixed", "number", "", "mono", "number", ""]));
}

const resolutionOf = (/** @type {Block} */ b) => (b.res === 0 ? "raw" : `${b.res / 60000}m`);

function markText(/** @type {Block} */ b) {
  return [b.marks & 1 && "deletion", b.marks & 2 && "no compaction", b.marks & 4 && "no downsampling"].filter(Boolean).join(", ");
}

function bytes(/** @type {number} */ n) {
  if (n === 0) return "unknown";
  const i = Math.min(5, Math.floor(Math.log2(n) / 10));
  return `${(n / 2 ** (10 * i)).toPrecision(3)} ${["B", "KiB", "MiB", "GiB", "TiB", "PiB"][i]}`;
}

/** show shows what is known of a block. */
function show(/** @type {Block|undefined} */ b) {
  chosen = b;
  byId("block").hidden = !b;
  if (!b) return;
  byId("block-title").textContent = b.id;
  const rows = /** @type {[string, string|Node][]} */ ([["From", time(new Date(b.min))], ["Until", time(new Date(b.max))],
    ["Labels", b.stream.text], ["Level", String(b.level)], ["Resolution", resolutionOf(b)], ["Source", b.source],
    ["Series", b.series.toLocaleString()], ["Samples", b.samples.toLocaleString()], ["Chunks", b.chunks.toLocaleString()],
    ["Size", bytes(b.bytes)], ["Marks", markText(b) || "none"],
    ["meta.json", el("a", { href: `api/v1/blocks/meta?id=${encodeURIComponent(b.id)}`, download: `${b.id}.json` }, "download")]]);
  byId("details").replaceChildren(table(["", ""], rows, ["fixed", "mono"]));
  byId("mark").hidden = !admin;
}

function showSpan(/** @type {number} */ from, /** @type {number} */ until) {
  byId("span").textContent = blocks.length ? `${time(new Date(from))} to ${time(new Date(until))}` : "";
}

byId("mark").addEventListener("submit", async (event) => {
  event.preventDefault();
  const action = /** @type {HTMLButtonElement} */ (/** @type {SubmitEvent} */ (event).submitter).value;
  if (!chosen || !confirm(`${action} on block ${chosen.id}?`)) return;
  try {
    await request("api/v1/blocks/mark", { method: "POST", body: new URLSearchParams({ id: chosen.id, action, detail: detail.value }) });
    chosen.marks |= action === "DELETION" ? 1 : 2;
    show(chosen);
    filter();
  } catch (error) {
    fault(String(error));
  }
});

const theme = recall("hearth.theme");
if (theme) document.documentElement.dataset.theme = theme;
if (/\/loaded$/.test(location.pathname)) view.value = "loaded";
for (const control of [resolution, marks]) control.addEventListener("change", filter);
let typing = 0;
search.addEventListener("input", () => {
  clearTimeout(typing);
  typing = setTimeout(filter, 200);
});
view.addEventListener("change", () => {
  version = -1;
  void refresh();
});
byId("all").addEventListener("click", () => lanes.zoomOut());
setInterval(() => document.hidden || refresh(), refreshEvery);
void refresh();
