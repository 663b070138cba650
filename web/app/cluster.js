// @ts-check
// The state of this process, its ring and the stores it queries.

import { Failure, getTenant, request } from "./api.js";
import { ago, el, table, time } from "./format.js";

const byId = (/** @type {string} */ id) => /** @type {HTMLElement} */ (document.getElementById(id));

/** dot is a state's word with a color: good, fair or bad. */
function dot(/** @type {string} */ state) {
  const good = ["ready", "active", "ok", "up"], bad = ["down", "failed", "error", "not ready"];
  return el("span", { class: `dot ${good.includes(state) ? "good" : bad.includes(state) ? "bad" : "fair"}` }, state);
}

/** showCluster reads and shows everything below the query; what this process does not have stays hidden. */
export async function showCluster() {
  await Promise.all([showState(), showRing(), showStores()]);
}

let writeURL = "";

async function showState() {
  const health = byId("health");
  try {
    const state = await request("ui/state");
    byId("version").textContent = state.version;
    const count = (/** @type {string} */ word) => state.parts.filter((/** @type {any} */ p) => p.state === word).length;
    const waiting = count("not ready"), impaired = count("impaired");
    health.textContent = waiting > 0 ? `${waiting} of ${state.parts.length} parts not ready` : impaired > 0 ? `ready, ${impaired} impaired` : "ready";
    health.className = `pill ${waiting + impaired === 0 ? "good" : "fair"}`;
    byId("parts").replaceChildren(state.parts.length === 0 ? el("p", { class: "dim" }, "No parts are reported.")
      : table(["Part", "State", ""], state.parts.map((/** @type {any} */ p) => [p.name, dot(p.state), p.detail ?? ""])));
    writeURL = state.remoteWriteURL ?? "";
    showSnippet();
  } catch (error) {
    health.textContent = "no answer";
    health.className = "pill bad";
    byId("parts").replaceChildren(el("p", { class: "message error" }, error instanceof Error ? error.message : String(error)));
  }
}

/** showSnippet writes the remote_write configuration for the chosen tenant. */
export function showSnippet() {
  byId("send").hidden = writeURL === "";
  let text = `remote_write:\n  - url: ${writeURL}\n    protobuf_message: io.prometheus.write.v2.Request\n` +
    "    # sends types and help with prometheus --enable-feature=metadata-wal-records\n" +
    "    send_exemplars: true\n    send_native_histograms: true\n";
  const tenant = getTenant();
  if (tenant && !tenant.includes("|")) text += `    headers:\n      X-Scope-OrgID: '${tenant.replaceAll("'", "''")}'\n`;
  byId("snippet").textContent = text;
}

async function showRing() {
  const section = byId("ring");
  if (missing.has(section.id)) return;
  try {
    const ring = await request("ring?format=json");
    const rings = (ring.rings ?? []).filter((/** @type {any} */ r) => r.members?.length);
    section.hidden = rings.length === 0;
    const tables = rings.map((/** @type {any} */ r) => {
      const view = table(["Member", "State", "Zone", "Address", "Heartbeat", "Data since", "Has a copy of"], r.members.map((/** @type {any} */ m) =>
        [m.id, dot(m.state), m.zone ?? "", m.addr, `${m.heartbeat_age_seconds}s ago`, when(m.since), m.share_percent > 0 ? `${m.share_percent.toFixed(1)}%` : ""]),
        ["fixed", "", "", "mono fixed", "fixed", "fixed", "number"]);
      view.querySelector("table")?.prepend(el("caption", {}, `${r.role}${r.role === "receive" ? `, replication factor ${ring.replication_factor}` : ""}`));
      return view;
    });
    if (ring.conflict) tables.unshift(el("p", { class: "message error" }, ring.conflict));
    byId("members").replaceChildren(...tables);
  } catch (error) {
    absent(section, byId("members"), error);
  }
}

async function showStores() {
  const section = byId("stores");
  if (missing.has(section.id)) return;
  try {
    const groups = (await request("api/v1/stores")).data ?? {};
    const rows = Object.keys(groups).sort().flatMap((role) => (groups[role] ?? []).map((/** @type {any} */ s) => [
      s.name, role, dot(s.lastError ? "failed" : "ok"), labelSets(s.labelSets), span(s.minTime, s.maxTime),
      s.lastCheck ? ago(Date.parse(s.lastCheck)) : "", s.lastError ? errorText(s.lastError) : ""]));
    section.hidden = rows.length === 0;
    byId("store-list").replaceChildren(table(["Store", "Role", "State", "Labels", "Data", "Checked", "Error"], rows, ["mono fixed", "", "", "mono", "fixed", "fixed", "text"]));
  } catch (error) {
    absent(section, byId("store-list"), error);
  }
}

/** missing are the sections that this process does not have: they are not asked for again. */
const missing = new Set();

/** absent hides a section that this process does not have, and shows any other error. */
function absent(/** @type {HTMLElement} */ section, /** @type {HTMLElement} */ place, /** @type {unknown} */ error) {
  section.hidden = error instanceof Failure && error.status === 404;
  if (section.hidden) missing.add(section.id);
  place.replaceChildren(el("p", { class: "message error" }, error instanceof Error ? error.message : String(error)));
}

const errorText = (/** @type {any} */ e) => (typeof e === "string" ? e : JSON.stringify(e));

/** labelSets writes what Thanos's answer has: a list of label objects, or of {labels: [...]}. */
function labelSets(/** @type {any[]|undefined} */ sets) {
  return (sets ?? []).map((s) => `{${Object.entries(s).map(([k, v]) => `${k}=${JSON.stringify(v)}`).join(", ")}}`).join(" ");
}

const unbounded = 1e15; // ms: stores say "for ever" in several ways

function span(/** @type {number} */ min, /** @type {number} */ max) {
  if (min === undefined || max === undefined || min > max) return "none";
  const from = Math.abs(min) > unbounded ? "ever" : time(new Date(min)).slice(0, 16);
  return `${from} to ${Math.abs(max) > unbounded ? "now" : time(new Date(max)).slice(0, 16)}`;
}

function when(/** @type {string} */ text) {
  const t = Date.parse(text);
  return t > 0 ? time(new Date(t)).slice(0, 16) : "";
}
