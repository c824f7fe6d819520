// Spend: over time and by who or what caused it; budgets and where they are heading.

import { address, changed } from "../address.js";
import { endpoint, get } from "../api.js";
import { burnChart } from "../burn_chart.js";
import { h } from "../dom.js";
import { compact, count, dayAndClock, duration, percent, usd, usdExact, usdShort } from "../format.js";
import { icon } from "../icons.js";
import { badge, dataTable, empty, facts, section } from "../parts.js";
import { meter } from "../small_charts.js";
import { timeChart } from "../time_chart.js";
import { toneAt } from "../tones.js";

export const isLive = true;

const FIRST_BUDGETS = 12;
const ALL_BUDGETS = 200;
const WAYS = { model: "Model", route: "Route", tenant: "Tenant", key: "Key", tag: "Tag" };

export async function load({ query, params }, signal) {
  const by = params.get("by") in WAYS ? params.get("by") : "model";
  const asked = { ...query, by };
  const limit = params.get("budgets") === "all" ? ALL_BUDGETS : FIRST_BUDGETS;
  const alone = get("reports/budgets", { limit }, signal).catch((problem) => ({ problem })); // spend is shown without them
  const [spend, budgets] = await Promise.all([get("reports/spend", asked, signal), alone]);
  return { spend, budgets, asked };
}

export function draw({ spend, budgets, asked }) {
  return h("div", { class: "stack" }, wayTools(spend.by), spent(spend, asked), own(spend), budgetPart(budgets));
}

function wayTools(by) {
  const links = Object.entries(WAYS).map(([way, title]) =>
    h("a", { href: changed({ by: way }), "aria-current": way === by ? "true" : undefined, "data-key": `by-${way}` }, title));
  return h("div", { class: "filters" }, h("span", { id: "spend-by" }, "By"), h("div", { class: "segments", role: "group", "aria-labelledby": "spend-by" }, links));
}

function spent(spend, asked) {
  if (spend.groups.length === 0) {
    return h("div", { class: "panel" }, empty("Nothing was spent in this time", "Look at a longer time, or send a request."));
  }
  const csv = h("a", { class: "button", href: endpoint("reports/spend", { ...asked, format: "csv" }), download: `spend-by-${spend.by}.csv`, "data-key": "csv" },
    icon("download"), "Export CSV");
  return section(`Spend by ${WAYS[spend.by].toLowerCase()}`, {
    name: "spent", tools: csv,
    note: [h("strong", { title: usdExact(spend.total.spend_nano_usd) }, usd(spend.total.spend_nano_usd)),
      ` over ${count(spend.total.requests)} requests`, spend.by === "tag" ? "; a request counts for each of its tags" : ""],
  }, overTime(spend), groupTable(spend));
}

/** The groups of the chart in the order of the table, with the rest as one. */
function overTime({ series, range, by }) {
  const names = [...new Set(series.map((point) => point.name))];
  const times = [...new Set(series.map((point) => Date.parse(point.t)))].sort((a, b) => a - b);
  const place = new Map(times.map((at, index) => [at, index]));
  const lines = names.map((name, index) => ({ name: shownName(name, by), tone: name === "other" && index === names.length - 1 ? "other" : toneAt(index), values: new Array(times.length).fill(0) }));
  for (const point of series) lines[names.indexOf(point.name)].values[place.get(Date.parse(point.t))] = point.spend_nano_usd;
  if (times.length === 0) return null;
  return timeChart({ id: "spend", title: range.step === "day" ? "Spend by day, UTC" : "Spend by hour, UTC", times, step: range.step, kind: "bars", format: usd, axis: usdShort, series: lines });
}

const shownName = (name, by) => (name === "" ? `(no ${by})` : name);

function groupTable({ groups, total, by }) {
  const share = (group) => (total.spend_nano_usd ? group.spend_nano_usd / total.spend_nano_usd : 0);
  const columns = [
    { name: WAYS[by], text: (g) => g.name, sort: (g) => g.name,
      cell: (g) => (g.name === "" ? shownName("", by) : h("a", { href: address("requests", { [by]: g.name }) }, h("bdi", {}, g.name))) },
    { name: "Spend", number: true, text: (g) => usd(g.spend_nano_usd), exact: (g) => usdExact(g.spend_nano_usd), sort: (g) => g.spend_nano_usd },
    { name: "Share", text: (g) => percent(share(g)), sort: share,
      cell: (g) => h("div", { class: "share" }, meter({ share: share(g), label: percent(share(g)) }), h("span", {}, percent(share(g)))) },
    { name: "Requests", number: true, text: (g) => count(g.requests), sort: (g) => g.requests },
    { name: "Tokens", number: true, text: (g) => compact(g.tokens), exact: (g) => count(g.tokens), sort: (g) => g.tokens },
    { name: "Cache hits", number: true, text: (g) => percent(g.requests ? (g.hits_exact + g.hits_semantic) / g.requests : null), sort: (g) => (g.hits_exact + g.hits_semantic) / (g.requests || 1) },
    { name: "Escalated", number: true, text: (g) => count(g.escalations), sort: (g) => g.escalations },
    { name: "Saved, list price", number: true, text: (g) => usd(g.saved_nano_usd), exact: (g) => usdExact(g.saved_nano_usd), sort: (g) => g.saved_nano_usd },
    { name: "Saved, caches", number: true, text: (g) => usd(g.cache_saved_nano_usd), exact: (g) => usdExact(g.cache_saved_nano_usd), sort: (g) => g.cache_saved_nano_usd },
    { name: "Estimated", number: true, text: (g) => count(g.estimated), sort: (g) => g.estimated },
  ];
  return dataTable({ id: `spend-${by}`, caption: `Spend by ${by}`, columns, rows: groups });
}

function own({ own, idle }) {
  if (own.length + idle.length === 0) return null;
  const rows = [
    ...own.map((each) => ({ what: `${each.purpose}: ${count(each.calls)} calls, ${compact(each.tokens)} tokens`, spend: each.spend_nano_usd })),
    ...idle.map((each) => ({ what: `${each.model}, idle for ${duration((each.up_s - each.busy_s) * 1000)} of ${duration(each.up_s * 1000)}`, spend: each.spend_nano_usd })),
  ];
  return section("On the gateway’s own account", { note: "Audits, controls and machines that stood idle: charged to no tenant, and in no line above." },
    dataTable({ id: "own", caption: "On the gateway’s own account", rows, columns: [
      { name: "What", text: (r) => r.what }, { name: "Spend", number: true, text: (r) => usd(r.spend), exact: (r) => usdExact(r.spend) },
    ] }));
}

// Budgets

function budgetPart({ budgets, left_out: leftOut, problem }) {
  if (problem) return section("Budgets", {}, h("p", { class: "notice bad", role: "alert" }, problem.message));
  const note = leftOut ? `The fullest ${budgets.length}; ${count(leftOut)} more are not shown.` : "Each in its present window, the fullest first.";
  const more = leftOut > 0 && budgets.length < ALL_BUDGETS && h("p", {}, h("a", { class: "button", href: changed({ budgets: "all" }), "data-key": "all-budgets" }, "Show more budgets"));
  if (budgets.length === 0) {
    return section("Budgets", {}, h("div", { class: "panel" }, empty("No budget is set",
      ["A policy sets one under ", h("code", {}, "limits"), ", for everyone, or for a key, tenant, route or tag."])));
  }
  const now = Date.now();
  return section("Budgets", { note }, h("div", { class: "cards" }, budgets.map((each) => budgetCard(each, now))), more);
}

function budgetCard(budget, now) {
  const { limit_nano_usd: limit, spent_nano_usd: spent, reserved_nano_usd: held, forecast } = budget;
  const tone = spent + (held ?? 0) >= limit ? "bad" : budget.share >= 0.8 || forecast?.runs_out ? "warn" : "";
  return h(
    "article", { class: "panel budget" },
    h("div", { class: "card-head" }, h("h3", {}, h("span", { class: "kind" }, budget.kind), " ", h("bdi", {}, budget.name)),
      badge(`${percent(budget.share)} used`, tone || "plain")),
    meter({ share: spent / limit, more: (held ?? 0) / limit, tone, label: `${usd(spent)} of ${usd(limit)} spent` }),
    facts([
      ["Spent", [h("strong", { title: usdExact(spent) }, usd(spent)), ` of ${usd(limit)} a ${budget.per === "total" ? "lifetime" : budget.per}`]],
      held === null ? null : ["Set aside now", usd(held)],
      forecast && ["Forecast for the end", [usd(forecast.spend_nano_usd), h("span", { class: "note" }, ` ${usd(forecast.low_nano_usd)} to ${usd(forecast.high_nano_usd)} with 80% certainty`)]],
      forecast?.runs_out && ["Runs out", h("span", { class: "word bad" }, dayAndClock(Date.parse(forecast.runs_out)))],
      ["At the limit", { refuse: "requests are refused", cheapest: "the cheapest model answers", warn: "a warning only" }[budget.at_limit] ?? budget.at_limit],
      ["Window", `${dayAndClock(Date.parse(budget.start))} to ${budget.end ? dayAndClock(Date.parse(budget.end)) : "no end"} (days of ${budget.time_zone})`],
    ]),
    burnChart(budget, now),
    h("ul", { class: "legend" },
      h("li", {}, h("span", { class: "swatch one" }), "left"),
      held > 0 && h("li", {}, h("span", { class: "swatch hatched" }), "set aside"),
      forecast && h("li", {}, h("span", { class: "swatch dashed" }), "forecast, with its range")),
  );
}
