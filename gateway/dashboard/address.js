// What the address bar says: which page, which time, which filters. It is the only state of a page.

import { iso } from "./format.js";

const HOUR_MS = 3_600_000;
const DAY_MS = 24 * HOUR_MS;

/** The folder of the pages, wherever a proxy has put it. */
export const BASE = new URL("./", location.href);

/** Ranges to choose from, in hours. */
export const RANGES = { "24h": 24, "7d": 7 * 24, "30d": 30 * 24, "90d": 90 * 24 };
const USUAL = "24h";

/** The page that is asked for, by name. */
export function viewName() {
  return location.pathname.slice(BASE.pathname.length) || "overview";
}

/** The parameters of the address. */
export const params = () => new URLSearchParams(location.search);

/** The address of a page that keeps the range, with other parameters of its own. */
export function address(view, changes = {}) {
  const kept = new URLSearchParams();
  for (const name of ["range", "from", "to", "compare"]) {
    if (params().has(name)) kept.set(name, params().get(name));
  }
  return spelled(view, kept, changes);
}

/** The address of this page with some parameters changed; `null` takes one away. */
export const changed = (changes) => spelled(viewName(), params(), changes);

function spelled(view, kept, changes) {
  for (const [name, value] of Object.entries(changes)) {
    if (value === null || value === "") kept.delete(name);
    else kept.set(name, value);
  }
  const query = kept.toString();
  return new URL((view === "overview" ? "./" : view) + (query ? `?${query}` : ""), BASE).href;
}

/** Go to an address of ours, and say so to whoever draws. */
export function go(href, { replace = false } = {}) {
  history[replace ? "replaceState" : "pushState"](null, "", href);
  dispatchEvent(new CustomEvent("frugal:address"));
}

/**
 * The time that is looked at, in milliseconds; `until` is null where it ends now. It begins with a
 * whole hour, or a whole day where days are shown: half a day would look like a bad one.
 */
export function timeRange(now = Date.now()) {
  const asked = params();
  const from = Date.parse(asked.get("from") ?? "");
  const to = Date.parse(asked.get("to") ?? "");
  if (from < to) return { name: "custom", since: from, until: to, length: to - from };
  const name = asked.get("range") in RANGES ? asked.get("range") : USUAL;
  const length = RANGES[name] * HOUR_MS;
  const since = name === USUAL ? floor(now - length, HOUR_MS) : floor(now, DAY_MS) - length + DAY_MS;
  return { name, since, until: null, length };
}

const floor = (ms, unit) => Math.floor(ms / unit) * unit;

/** The range as the reports take it. */
export function rangeQuery() {
  const { since, until } = timeRange();
  return { since: iso(since), until: until === null ? undefined : iso(until) };
}

/** Whether the period before stands beside the numbers. */
export const isCompared = () => params().get("compare") !== "off";
