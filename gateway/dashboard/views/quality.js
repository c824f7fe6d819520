// Quality: what is proven of each route, what was measured, and what the semantic cache got wrong.

import { get } from "../api.js";
import { h } from "../dom.js";
import { count, dayAndClock, percent } from "../format.js";
import { badge, csvButton, dataTable, empty, facts, section } from "../parts.js";
import { interval, reliability } from "../small_charts.js";

export const isLive = true;

export const load = ({ query }, signal) => get("reports/quality", query, signal);

export function draw({ routes }) {
  if (routes.length === 0) {
    return h("div", { class: "panel" }, empty("No route has quality to speak of",
      "A route with a cascade is measured against its reference model here, and one with a semantic cache against its error budget."));
  }
  const [told, plain] = [routes.filter(hasQuality), routes.filter((each) => !hasQuality(each))];
  return h("div", { class: "stack" }, told.map(route), plain.length > 0 && section("Nothing to compare", {
    note: ["Routes that one model answers: ", plain.map((each, index) => [index ? ", " : "", h("bdi", {}, each.route)]), "."],
  }));
}

const hasQuality = (each) => Boolean(each.reference) || each.drawn > 0 || each.false_hits.length + each.models.length > 0;

function route(each) {
  return section(each.route, {
    name: "quality-route",
    note: each.reference ? ["measured against ", h("strong", {}, h("bdi", {}, each.reference))] : "one model answers",
    tools: each.models.length > 0 && csvButton(`quality-${each.route}`, CSV, each.models.flatMap((model) => model.bins.map((bin) => ({ model: model.model, ...bin })))),
  }, alarms(each.alarms), h("div", { class: "cards wide" }, each.reference && lossCard(each), each.reference && certificateCard(each.certificate), each.false_hits.map(falseHitCard)),
    calibration(each), history(each));
}

const CSV = [
  { name: "model", text: (bin) => bin.model },
  ...["low", "high", "drafts", "mean_confidence", "share_good", "share_low", "share_high"].map((name) => ({ name, text: (bin) => bin[name] })),
];

// Worse than the reference

function lossCard({ drawn, losses, unknown, rate, low, high, floor, labels }) {
  const isBad = floor !== null && low > floor;
  const isOpen = floor !== null && !isBad && high > floor;
  const verdict = floor === null ? badge("no floor set") : isBad ? badge("above the floor", "bad") : isOpen ? badge("not settled yet", "warn") : badge("within the floor", "good");
  const words = drawn ? `${percent(rate)}, between ${percent(low)} and ${percent(high)}` : "nothing measured";
  const text = floor === null ? words : `${words}; at most ${percent(floor)} is allowed`;
  return h("article", { class: "panel quality-card" },
    h("div", { class: "card-head" }, h("h3", {}, "Served and worse than the reference"), verdict),
    drawn ? [h("p", { class: "big" }, percent(rate)), interval({ low, value: rate, high, limit: floor, format: percent, label: text, isBad })]
      : h("p", { class: "saved-none" }, "Not measured: no audits yet."),
    facts([
      ["Interval", drawn ? `${percent(low)} to ${percent(high)}, 95% certain` : "–"],
      floor === null ? null : ["Floor", `at most ${percent(floor)}`],
      ["Audited by lot", `${count(drawn)}, of which ${count(losses)} worse and ${count(unknown)} unclear`],
      Object.keys(labels).length ? ["Labelled by", Object.entries(labels).map(([who, many]) => `${who} (${count(many)})`).join(", ")] : null,
    ]));
}

const CERTIFICATES = {
  certified: ["certified", "good", "The floor is proven by an exact bound on labelled pairs."],
  learning: ["learning", "warn", "There are not enough labels yet: the route stays careful until there are."],
  none: ["none", "plain", "The route’s target asks for no proof."],
  weaker: ["weaker", "warn", "What is proven is less than the policy asks for: the route asks its reference."],
  lost: ["lost", "bad", "What was proven no longer holds: the route asks its reference until it is proven again."],
};

const certain = (share) => share ? `, ${percent(share)} certain` : "";

function certificateCard(certificate) {
  const [word, tone, text] = CERTIFICATES[certificate.state] ?? [certificate.state, "plain", ""];
  return h("article", { class: "panel quality-card" },
    h("div", { class: "card-head" }, h("h3", {}, "Certificate"), badge(word, tone)),
    h("p", {}, text),
    certificate.why && h("p", {}, certificate.why),
    facts([
      certificate.bound === null ? null : ["Proven", `at most ${percent(certificate.bound)} worse${certain(certificate.promised_certainty)}`],
      certificate.promised === null ? null : ["Certified for", `at most ${percent(certificate.promised)}${certain(certificate.promised_certainty)}`],
      certificate.floor === null ? null : ["Asked for", `at most ${percent(certificate.floor)}${certain(certificate.certainty)}`],
      certificate.stage === null ? null : ["Stage", certificate.stage],
      certificate.labels === null ? null : ["Labels", `${count(certificate.labels)}${certificate.labeller ? ` by ${certificate.labeller}` : ""}`],
      certificate.labeller_error === null ? null : ["Judge’s measured error", percent(certificate.labeller_error)],
      certificate.looks === null ? null : ["Looks taken", count(certificate.looks)],
      certificate.valid_until === null ? null : ["Valid until", dayAndClock(Date.parse(certificate.valid_until))],
      certificate.bundle === null ? null : ["Bundle", h("code", {}, certificate.bundle)],
    ]));
}

function falseHitCard(hits) {
  const isStopped = hits.state !== "serving"; // its error budget is spent: equal questions alone are hits
  const isBad = hits.budget !== null && hits.low > hits.budget;
  const words = `${percent(hits.rate)}, between ${percent(hits.low)} and ${percent(hits.high)}${hits.budget === null ? "" : `; the budget is ${percent(hits.budget)}`}`;
  return h("article", { class: "panel quality-card" },
    h("div", { class: "card-head" }, h("h3", {}, "False semantic hits", hits.tenant && [" · ", h("bdi", {}, hits.tenant)]), badge(hits.state, isStopped || isBad ? "bad" : "plain")),
    hits.audited ? [h("p", { class: "big" }, percent(hits.rate)), interval({ low: hits.low, value: hits.rate, high: hits.high, limit: hits.budget, format: percent, label: words, isBad })]
      : h("p", { class: "saved-none" }, "No hit was audited yet."),
    facts([
      ["Audited", `${count(hits.audited)}, of which ${count(hits.wrong)} wrong`],
      hits.budget === null ? null : ["Budget", `at most ${percent(hits.budget)}`],
      ["Stops", count(hits.stops)],
    ]));
}

// Calibration

function calibration({ route: name, models }) {
  const drawn = models.filter((model) => model.bins.some((bin) => bin.drafts > 0));
  if (drawn.length === 0) return null;
  return h("div", { class: "cards" }, drawn.map((model) => calibrationCard(name, model)));
}

function calibrationCard(name, { model, drafts, scored, mean_confidence: promised, mean_score: kept, bins }) {
  const label = `Calibration of ${model}: ${bins.filter((b) => b.drafts).map((b) => `confident ${percent(b.mean_confidence)}, good ${percent(b.share_good)}`).join("; ")}`;
  const columns = [
    { name: "Confidence", text: (b) => `${percent(b.low)} to ${percent(b.high)}` },
    { name: "Drafts", number: true, text: (b) => count(b.drafts) },
    { name: "Promised", number: true, text: (b) => percent(b.mean_confidence) },
    { name: "Kept", number: true, text: (b) => percent(b.share_good) },
    { name: "Interval", text: (b) => `${percent(b.share_low)} to ${percent(b.share_high)}` },
  ];
  return h("article", { class: "panel calibration" },
    h("h3", {}, "Calibration of ", h("bdi", {}, model)),
    h("div", { class: "calibration-body" }, reliability(bins, label),
      facts([["Drafts compared", `${count(scored)} of ${count(drafts)}`], ["Promised on average", percent(promised)], ["Kept on average", percent(kept)]])),
    h("details", { class: "as-table", "data-key": `bins-${name}-${model}` }, h("summary", {}, "Show as a table"),
      dataTable({ id: `bins-${name}-${model}`, caption: `Calibration of ${model}`, columns, rows: bins.filter((b) => b.drafts) })));
}

// What happened to the learning

function alarms(found) {
  return found.map((alarm) => h("div", { class: "notice bad", role: "note" },
    h("strong", {}, spelled(alarm.kind)), ` ${dayAndClock(Date.parse(alarm.at))} · ${detail(alarm.detail)}`));
}

function history({ route: name, steps }) {
  if (steps.length === 0) return null;
  const columns = [
    { name: "When (UTC)", text: (step) => dayAndClock(Date.parse(step.at)) },
    { name: "What", text: (step) => spelled(step.kind) },
    { name: "How", text: (step) => detail(step.detail) },
  ];
  return h("details", { class: "panel folded", "data-key": `steps-${name}` }, h("summary", {}, `What the route has learnt (${count(steps.length)})`),
    dataTable({ id: `steps-${name}`, caption: "What the route has learnt", columns, rows: steps }));
}

const spelled = (kind) => kind.replaceAll("_", " ");

function detail(fields) {
  return Object.entries(fields).map(([name, value]) => `${spelled(name)} ${typeof value === "object" ? JSON.stringify(value) : value}`).join(", ");
}
