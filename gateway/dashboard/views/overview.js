// Overview: what was spent, what was saved and how that is known, and how well it went.

import { get } from "../api.js";
import { address } from "../address.js";
import { h } from "../dom.js";
import { compact, count, duration, percent, usd, usdExact, usdShort } from "../format.js";
import { csvButton, empty, section, tile } from "../parts.js";
import { interval, spark } from "../small_charts.js";
import { timeChart } from "../time_chart.js";

export const isLive = true;
export const hasComparison = true;

export function load({ query, isCompared }, signal) {
  return get("reports/overview", { ...query, compare: isCompared }, signal);
}

export function draw(report) {
  if (report.now.requests === 0 && !report.before?.requests && report.now.spend_nano_usd === 0) return nothing();
  return h("div", { class: "stack" }, tiles(report), savings(report.now, report.before), charts(report));
}

function nothing() {
  return h("div", { class: "panel" }, empty(
    "No requests in this time",
    "Send one to the public port, or look at a longer time. Every answer, cached or not, appears here within seconds.",
  ));
}

const TILES = [
  { name: "Spend", of: (t) => t.spend_nano_usd, text: usd, exact: usdExact, series: "spend_nano_usd", better: "down",
    detail: beside },
  { name: "Per 1,000 requests", of: (t) => (t.requests ? (t.spend_nano_usd / t.requests) * 1000 : null), text: usd, better: "down",
    detail: (t) => `${compact(t.tokens)} tokens in all`, series: (p) => (p.requests ? p.spend_nano_usd / p.requests : null) },
  { name: "Requests", of: (t) => t.requests, text: compact, exact: count, series: "requests",
    detail: (t) => (t.estimated ? `${count(t.estimated)} with an estimated cost` : "every cost as the provider counted") },
  { name: "Cache hits", of: (t) => rate(t.hits_exact + t.hits_semantic, t.requests), text: percent, better: "up",
    detail: (t) => `exact ${percent(t.hit_rate_exact)}, semantic ${percent(t.hit_rate_semantic)}`, series: (p) => p.hits_exact + p.hits_semantic },
  { name: "Escalated", of: (t) => t.escalation_rate, text: percent, series: "escalations", better: "down",
    detail: (t) => `${compact(t.escalations)} drafts were not good enough` },
  { name: "Errors", of: (t) => t.error_rate, text: percent, series: "errors", better: "down",
    detail: (t) => `${count(t.errors)} failed, ${count(t.abandoned)} left early` },
  { name: "Latency, median", of: (t) => t.latency.p50_ms, text: duration, series: "p50_ms", better: "down",
    detail: (t) => `p95 ${duration(t.latency.p95_ms)}, p99 ${duration(t.latency.p99_ms)}` },
  { name: "First token, median", of: (t) => t.ttft.p50_ms, text: duration, series: "ttft_p50_ms", better: "down",
    detail: (t) => `p95 ${duration(t.ttft.p95_ms)}, p99 ${duration(t.ttft.p99_ms)}` },
];

/** What was spent beside the tenants' requests. */
function beside(t) {
  const own = t.own_nano_usd ? `${usd(t.own_nano_usd)} on audits and controls` : "";
  const idle = t.idle_nano_usd ? `${usd(t.idle_nano_usd)} on idle machines` : "";
  return own || idle ? `beside it ${[own, idle].filter(Boolean).join(", ")}` : "what tenants’ requests cost";
}

const rate = (part, whole) => (whole ? part / whole : null);

function tiles({ now, before, series }) {
  return h("dl", { class: "tiles", "aria-label": "In short" }, TILES.map((each) => {
    const pick = typeof each.series === "function" ? each.series : (point) => point[each.series];
    const value = each.of(now);
    const made = tile({
      name: each.name, value: each.text(value), exact: each.exact?.(value), detail: each.detail(now), better: each.better,
      now: value, before: before && each.of(before), beforeText: before ? each.text(each.of(before)) : undefined,
    });
    made.append(h("dd", { class: "tile-spark" }, spark(series.map(pick)) ?? ""));
    return made;
  }));
}

// Savings: three ways to tell them, in three forms, never added up

function savings({ saved }, before) {
  return section(
    "Saved", { name: "savings", note: "Three ways to tell it. They overlap, and are never added up." },
    h("div", { class: "saved-cards" }, measuredCard(saved.measured), listCard(saved, before?.saved), cacheCard(saved, before?.saved)),
  );
}

function measuredCard(measured) {
  const told = measured.filter((each) => each.saved_nano_usd !== null);
  const body = told.length ? told.map(measuredRoute) : [noMeasure(measured)];
  return h("article", { class: `saved measured ${told.length ? "" : "unmeasured"}` }, h("h3", {}, "Measured"), body,
    h("p", { class: "note" }, "Against requests drawn by lot and sent straight to the reference model, with a 95% interval."));
}

function measuredRoute({ route, saved_nano_usd: saved, low_nano_usd: low, high_nano_usd: high, control_requests: control, policy_requests: rest }) {
  const words = `${usd(saved)} on ${route}, between ${usd(low)} and ${usd(high)} with 95% certainty`;
  return h("div", { class: "measured-route" },
    h("p", { class: "saved-value" }, h("strong", { title: usdExact(saved) }, usd(saved)), h("span", {}, ` ${route}`)),
    interval({ low, value: saved, high, format: usd, label: words }),
    h("p", { class: "note" }, `${count(control)} of ${count(control + rest)} requests were controls`));
}

function noMeasure(measured) {
  const few = measured.reduce((sum, each) => sum + each.control_requests, 0);
  return h("p", { class: "saved-none" }, measured.length
    ? `Not yet: ${count(few)} control requests are too few to tell.`
    : ["Not measured: no route has a control arm. ", h("code", {}, "control: 0.01"), " in its cascade begins one."]);
}

function listCard(saved, before) {
  return h("article", { class: "saved modelled" }, h("h3", {}, "By list price"),
    h("p", { class: "saved-value" }, h("strong", { title: usdExact(saved.list_price_nano_usd) }, usd(saved.list_price_nano_usd)), was(before?.list_price_nano_usd)),
    h("p", { class: "note" }, "A calculation, not a measurement: the same tokens at the reference model’s list price, less what was paid."));
}

function cacheCard(saved, before) {
  return h("article", { class: "saved modelled" }, h("h3", {}, "By the caches"),
    h("p", { class: "saved-value" }, h("strong", { title: usdExact(saved.caches_nano_usd) }, usd(saved.caches_nano_usd)), was(before?.caches_nano_usd)),
    h("p", { class: "note" }, "A calculation, not a measurement: what the answers that were served again would have cost at the reference model’s list price."));
}

const was = (nano) => (nano === undefined ? null : h("span", {}, ` was ${usd(nano)}`));

// Over time

const COLUMNS = [
  { name: "time_utc", text: (p) => p.t },
  ...["spend_usd", "requests", "errors", "hits_exact", "hits_semantic", "escalations", "p50_ms", "p95_ms", "p99_ms", "ttft_p50_ms"]
    .map((name) => ({ name, text: (p) => p[name], raw: (p) => (name === "spend_usd" ? Number(p[name]) : p[name]) })),
];

function charts({ series, range }) {
  const times = series.map((point) => Date.parse(point.t));
  const values = (name) => series.map((point) => point[name]);
  const shared = { times, step: range.step };
  const answered = series.map((p) => Math.max(0, p.requests - p.hits_exact - p.hits_semantic - p.errors));
  return section(
    "Over time", { name: "over-time", tools: csvButton("overview", COLUMNS, series), note: range.step === "day" ? "By day, UTC" : "By hour, UTC" },
    h("div", { class: "charts" },
      timeChart({ ...shared, id: "spend", title: "Spend", kind: "bars", format: usd, axis: usdShort,
        series: [{ name: "spend", tone: "one", values: values("spend_nano_usd") }] }),
      timeChart({ ...shared, id: "requests", title: "Requests by who answered", kind: "bars", format: count, axis: compact, series: [
        { name: "models", tone: "one", values: answered },
        { name: "exact cache", tone: "two", values: values("hits_exact") },
        { name: "semantic cache", tone: "three", values: values("hits_semantic") },
        { name: "failed", tone: "bad", values: values("errors") },
      ] }),
      timeChart({ ...shared, id: "latency", title: "Latency", kind: "lines", format: duration, axis: duration, series: [
        { name: "p99", tone: "other", values: values("p99_ms") },
        { name: "p95", tone: "two", values: values("p95_ms") },
        { name: "median", tone: "one", values: values("p50_ms") },
      ] }),
      timeChart({ ...shared, id: "escalations", title: "Drafts escalated", kind: "bars", format: count, axis: compact,
        series: [{ name: "escalated", tone: "one", values: values("escalations") }] })),
    h("p", { class: "note" }, "What one request went through is on ", h("a", { href: address("requests") }, "Requests"), "."),
  );
}
