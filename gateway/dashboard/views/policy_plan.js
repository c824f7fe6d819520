// What a policy would have made of logged traffic; and what such a replay cannot know.

import { h } from "../dom.js";
import { change, count, duration, moment, usd, usdExact } from "../format.js";
import { badge, facts } from "../parts.js";
import { interval } from "../small_charts.js";

const MOST_SHOWN = 40;

/** Draw what was planned. */
export function planned(plan) {
  if (plan.requests === 0) {
    return [h("h2", {}, "Plan"), h("p", { class: "notice" }, "No requests were logged in that time: nothing can be said of the cost."), changes(plan.changes)];
  }
  const some = plan.replayed < plan.requests ? `, the newest ${count(plan.replayed)} of ${count(plan.requests)}` : "";
  return [
    h("h2", {}, "Plan"),
    h("p", { class: "note" }, `${count(plan.replayed)} logged requests replayed${some}, since ${moment(Date.parse(plan.since)).slice(0, 16)} UTC`),
    h("article", { class: "panel" }, h("div", { class: "card-head" }, h("h3", {}, "All routes"), word(plan)), cost(plan),
      plan.refused > 0 && h("p", { class: "notice warn" }, `${count(plan.refused)} of them would have been refused.`)),
    changes(plan.changes),
    plan.routes.map(route),
    h("div", { class: "notice" }, h("strong", {}, "What no replay can tell"), h("ul", { class: "explanation" }, plan.unknowable.map((each) => h("li", {}, each)))),
  ];
}

function word({ now_nano_usd: now, low_nano_usd: low, high_nano_usd: high }) {
  if (low === now && high === now) return badge("costs the same");
  if (high <= now) return badge("cheaper", "good");
  return low >= now ? badge("dearer", "warn") : badge("may cost more or less");
}

/** The cost as it was, and the range in which it would be; a point in it only where one is known. */
function cost({ now_nano_usd: now, low_nano_usd: low, high_nano_usd: high, expected_nano_usd: expected }) {
  const words = `${usd(now)} as it was; between ${usd(low)} and ${usd(high)} as planned${expected === null ? "" : `, ${usd(expected)} expected`}`;
  const difference = expected === null ? null : change(expected, now);
  return [
    facts([
      ["As it was", h("span", { title: usdExact(now) }, usd(now))],
      ["As planned", low === high ? usd(low) : `${usd(low)} to ${usd(high)}`],
      expected === null ? null : ["Expected", [h("strong", {}, usd(expected)), difference === null ? "" : ` (${difference})`]],
    ]),
    low !== high && interval({ low, value: expected, high, limit: now, format: usd, label: words, limitWord: "as it was" }),
  ];
}

function route(each) {
  const models = [...new Set([...Object.keys(each.calls_now), ...Object.keys(each.calls)])].sort();
  return h("details", { class: "panel folded" },
    h("summary", {}, h("bdi", {}, each.route), ` · ${count(each.requests)} requests · ${usd(each.now_nano_usd)} → `,
      each.expected_nano_usd === null ? `${usd(each.low_nano_usd)} to ${usd(each.high_nano_usd)}` : usd(each.expected_nano_usd)),
    cost(each),
    facts([
      ["Latency, mean", `${duration(each.now_latency_ms)} → ${each.expected_latency_ms === null ? "not known" : duration(each.expected_latency_ms)}`],
      each.unsure > 0 ? ["Not sure of", `${count(each.unsure)} requests`] : null,
      each.refused > 0 ? ["Refused", count(each.refused)] : null,
      ...models.map((model) => [["Calls of ", h("bdi", {}, model)], `${count(each.calls_now[model] ?? 0)} → ${range(each.calls[model])}`]),
    ]),
    each.notes.length > 0 && h("ul", { class: "explanation" }, each.notes.map((note) => h("li", {}, note))));
}

const range = (calls) => (!calls ? "0" : calls.low === calls.high ? count(calls.low) : `${count(calls.low)} to ${count(calls.high)}`);

function changes(found) {
  if (found.length === 0) return h("p", { class: "notice" }, "Nothing differs from the policy in force.");
  return h("article", { class: "panel" }, h("h3", {}, found.length === 1 ? "One change" : `${count(found.length)} changes`),
    h("dl", { class: "changes" }, found.slice(0, MOST_SHOWN).map(({ path, before, after }) =>
      h("div", {}, h("dt", {}, h("code", {}, path)), h("dd", {}, h("del", {}, shown(before)), " → ", h("ins", {}, shown(after)))))),
    found.length > MOST_SHOWN && h("p", { class: "note" }, `${count(found.length - MOST_SHOWN)} more are not shown.`));
}

const shown = (value) => (value === null ? "nothing" : typeof value === "string" ? value : JSON.stringify(value));
