// Providers: how each model, each of its servers and the engines on this machine are doing.

import { get } from "../api.js";
import { h } from "../dom.js";
import { compact, count, dayAndClock, duration, percent } from "../format.js";
import { badge, csvButton, dataTable, empty, facts, section } from "../parts.js";
import { meter } from "../small_charts.js";
import { BREAKER_TONES } from "../tones.js";

export const isLive = true;
export const hasRange = false;

export const load = (_, signal) => get("reports/providers", {}, signal);

export function draw({ providers, calls_since: since, workers }) {
  if (providers.length === 0) return h("div", { class: "panel" }, empty("The policy names no model", "Add one under models."));
  const note = [
    since ? `Calls since ${dayAndClock(Date.parse(since))}, UTC. ` : "No calls yet. ",
    workers > 1 ? `Breakers and calls under way are those of one of ${workers} workers.` : "",
  ];
  const engines = providers.filter((each) => each.engine);
  const spread = providers.filter((each) => each.deployments.length > 0);
  return h("div", { class: "stack" },
    section("Models", { note, tools: csvButton("providers", CSV, providers) },
      dataTable({ id: "providers", caption: "Models and their calls", columns: COLUMNS, rows: providers })),
    engines.length > 0 && section("Engines on this machine", {}, h("div", { class: "cards" }, engines.map(engineCard))),
    spread.length > 0 && section("Servers of each model", {}, h("div", { class: "cards wide" }, spread.map(deploymentCard))));
}

const failed = (p) => (p.calls ? p.failed / p.calls : null);

const COLUMNS = [
  { name: "Model", text: (p) => p.model, sort: (p) => p.model,
    cell: (p) => h("div", {}, h("bdi", {}, p.model), h("div", { class: "note" }, p.provider, p.upstream_model && p.upstream_model !== p.model ? [" · ", h("bdi", {}, p.upstream_model)] : "")) },
  { name: "Breaker", text: (p) => p.breaker, sort: (p) => p.breaker, cell: (p) => badge(p.breaker.replaceAll("_", " "), BREAKER_TONES[p.breaker]) },
  { name: "Calls", number: true, text: (p) => count(p.calls), sort: (p) => p.calls },
  { name: "Failed", number: true, text: (p) => percent(failed(p)), sort: failed, cell: (p) => h("span", { class: p.failed ? "word bad" : undefined, title: outcomes(p) }, percent(failed(p))) },
  { name: "Latency, median", number: true, text: (p) => duration(p.latency.p50_ms), sort: (p) => p.latency.p50_ms },
  { name: "p95", number: true, text: (p) => duration(p.latency.p95_ms), sort: (p) => p.latency.p95_ms },
  { name: "p99", number: true, text: (p) => duration(p.latency.p99_ms), sort: (p) => p.latency.p99_ms },
  { name: "First token", number: true, text: (p) => duration(p.ttft.p50_ms), sort: (p) => p.ttft.p50_ms },
  { name: "Limits", text: limits },
];

const outcomes = (p) => Object.entries(p.outcomes).map(([what, many]) => `${what.replaceAll("_", " ")} ${count(many)}`).join(", ");

function limits(p) {
  return Object.entries(p.limits).map(([what, many]) => `${what.replaceAll("_", " ")} ${count(many)}`).join(", ") || "none";
}

const CSV = [
  ...["model", "provider", "upstream_model", "breaker", "calls", "failed"].map((name) => ({ name, text: (p) => p[name] })),
  ...["p50_ms", "p95_ms", "p99_ms"].map((name) => ({ name: `latency_${name}`, text: (p) => p.latency[name] })),
  { name: "ttft_p50_ms", text: (p) => p.ttft.p50_ms },
];

function engineCard({ model, engine }) {
  const slots = engine.running === null ? null : engine.running / (engine.max_batch || 1);
  return h("article", { class: "panel" },
    h("div", { class: "card-head" }, h("h3", {}, h("bdi", {}, model)), badge(engine.ready ? "ready" : "not ready", engine.ready ? "good" : "bad")),
    h("div", { class: "gauges" },
      gauge("Batch", slots, engine.running === null ? "–" : `${count(engine.running)} of ${count(engine.max_batch)}`),
      gauge("KV cache", engine.kv_used, percent(engine.kv_used))),
    facts([
      ["Waiting", count(engine.waiting)],
      ["Tokens made", compact(engine.completion_tokens)],
      ["Busy", engine.busy_s === null ? "–" : duration(engine.busy_s * 1000)],
    ]));
}

function gauge(name, share, words) {
  return h("div", { class: "gauge" }, h("div", { class: "gauge-words" }, h("span", {}, name), h("span", {}, words)),
    meter({ share: share ?? 0, tone: share > 0.9 ? "warn" : "", label: `${name}: ${words}` }));
}

function deploymentCard({ model, deployments }) {
  const columns = [
    { name: "Server", text: (d) => d.name, cell: (d) => h("bdi", {}, d.name) },
    { name: "State", text: (d) => d.state, cell: (d) => badge(d.is_down ? "down" : d.state.replaceAll("_", " "), d.is_down ? "bad" : BREAKER_TONES[d.state] ?? "plain") },
    { name: "Under way", number: true, text: (d) => `${count(d.in_flight)}${d.limit === null ? "" : ` of ${count(d.limit)}`}` },
    { name: "Expected", number: true, text: (d) => duration(d.expected_ms) },
    { name: "Rests for", number: true, text: (d) => (d.rests_s > 0 ? duration(d.rests_s * 1000) : "–") },
    { name: "Weight", number: true, text: (d) => String(d.weight) },
  ];
  return h("article", { class: "panel" }, h("h3", {}, h("bdi", {}, model)), dataTable({ id: `servers-${model}`, caption: `Servers of ${model}`, columns, rows: deployments }));
}
