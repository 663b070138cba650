// @ts-check
// Requests to the page's own server.

/** @typedef {{resultType: string, result: any}} QueryData */
/** @typedef {{data: any, warnings: string[], infos: string[]}} Answer */

const tenantKey = "hearth.tenant";

/** recall reads what keep stored; storage may be forbidden, and then nothing is remembered. */
export function recall(/** @type {string} */ key) {
  try {
    return localStorage.getItem(key) ?? "";
  } catch {
    return "";
  }
}

/** keep stores text for the next visit. */
export function keep(/** @type {string} */ key, /** @type {string} */ text) {
  try {
    localStorage.setItem(key, text);
  } catch { /* not remembered */ }
}

let tenant = recall(tenantKey);

/** getTenant is the chosen tenant, "" for the server's default. */
export const getTenant = () => tenant;

/** setTenant chooses the tenant of all further requests. */
export function setTenant(/** @type {string} */ id) {
  tenant = id;
  keep(tenantKey, id);
}

/** Failure is an error that the server reported, with its own words. */
export class Failure extends Error {
  /**
   * @param {string} type the server's word, or the HTTP status
   * @param {string} message
   * @param {number} status
   */
  constructor(type, message, status) {
    super(message);
    this.type = type;
    this.status = status;
  }
}

/**
 * request fetches JSON of any shape.
 * @param {string} path relative to the page
 * @param {RequestInit} [init]
 */
export async function request(path, init = {}) {
  const headers = new Headers(init.headers);
  headers.set("Accept", "application/json");
  if (tenant) headers.set("X-Scope-OrgID", tenant);
  const response = await fetch(path, { ...init, headers });
  const text = await response.text();
  let body;
  try {
    body = JSON.parse(text);
  } catch {
    throw new Failure(`HTTP ${response.status}`, text.trim() || response.statusText, response.status);
  }
  if (body?.status === "error") throw new Failure(body.errorType ?? `HTTP ${response.status}`, body.error ?? text, response.status);
  if (!response.ok && response.status !== 503) throw new Failure(`HTTP ${response.status}`, text.trim(), response.status);
  return body;
}

/**
 * call asks Prometheus's API. Parameters go in the body, so that a query may be long.
 * @param {string} endpoint below api/v1/
 * @param {Record<string, string>} parameters
 * @param {AbortSignal} signal
 * @returns {Promise<Answer>}
 */
export async function call(endpoint, parameters, signal) {
  const body = await request(`api/v1/${endpoint}`, { method: "POST", body: new URLSearchParams(parameters), signal });
  return { data: body.data, warnings: body.warnings ?? [], infos: body.infos ?? [] };
}

/** metricNames lists the tenant's metric names. */
export async function metricNames() {
  const body = await request("api/v1/label/__name__/values?limit=50000");
  return /** @type {string[]} */ (body.data ?? []);
}
