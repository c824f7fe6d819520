// One request opened: which way it went, how long each step took, and what it cost.

import { changed } from "../address.js";
import { get } from "../api.js";
import { h, refill } from "../dom.js";
import { count, duration, moment, percent, usd, usdExact } from "../format.js";
import { icon } from "../icons.js";
import { badge, dataTable, facts, failure, waiting } from "../parts.js";
import { STATE_TONES } from "../tones.js";

/** Return a dialog that opens itself with one request, and leaves the address when it is closed. */
export function openRequest(id) {
  const body = h("div", { class: "stack" }, waiting());
  const dialog = h("dialog", { class: "panel drawer", "aria-labelledby": "opened-title", onclose: leave },
    h("div", { class: "card-head" }, h("h2", { id: "opened-title" }, "Request ", h("code", {}, id)),
      h("button", { type: "button", class: "quiet", "aria-label": "Close", title: "Close", onclick: () => dialog.close() }, icon("close"))),
    body);
  function leave() {
    history.replaceState(null, "", changed({ open: null }));
    dialog.remove();
  }
  const load = () => get(`reports/requests/${encodeURIComponent(id)}`)
    .then((detail) => refill(body, draw(detail)), (error) => refill(body, failure(error, load)));
  queueMicrotask(() => {
    if (dialog.isConnected) dialog.showModal();
  });
  load();
  return dialog;
}

function draw(detail) {
  const { request } = detail;
  return [
    h("div", { class: "badges" }, badge(request.state, STATE_TONES[request.state]), badge(`status ${request.status}`), badge(`cache: ${request.cache}`),
      request.stream && badge("stream"), request.estimated && badge("cost estimated", "warn")),
    request.error && h("p", { class: "notice bad" }, request.error),
    summary(request),
    h("h3", {}, "What happened"),
    waterfall(detail),
    detail.explanation.length ? h("ul", { class: "explanation" }, detail.explanation.map((line) => h("li", {}, line))) : null,
    headerPart(detail.headers),
    textPart(detail),
  ];
}

function summary(r) {
  const bounds = r.estimated ? ` (between ${usdExact(r.lower_nano_usd)} and ${usdExact(r.upper_nano_usd)})` : "";
  return facts([
    ["Arrived", `${moment(Date.parse(r.at))} UTC`],
    ["Took", `${duration(r.latency_ms)}${r.ttft_ms === null ? "" : `, first token after ${duration(r.ttft_ms)}`}`],
    ["Asked for", h("bdi", {}, r.requested_model)],
    ["Answered by", h("bdi", {}, r.model || "nobody")],
    ["Cost", [usdExact(r.cost_nano_usd), bounds]],
    ["Saved, list price", usdExact(r.saved_nano_usd)],
    ["Who", [h("bdi", {}, r.key), " of ", h("bdi", {}, r.tenant)]],
    ["Tags", r.tags.length ? r.tags.map((tag) => [h("bdi", { class: "tag" }, tag), " "]) : "none"],
    ["Tokens", Object.entries(r.usage).filter(([, many]) => many).map(([kind, many]) => `${kind.replaceAll("_", " ")} ${count(many)}`).join(", ") || "none"],
  ]);
}

// The waterfall: one line a step, a bar where it took time

const OUTCOMES = { accepted: "good", rejected: "warn", rejected_early: "warn", abandoned: "warn" };

function waterfall({ request, cache, skipped, attempts }) {
  const total = Math.max(request.latency_ms, ...attempts.map((a) => a.started_ms + a.took_ms), 0.001);
  const steps = [
    cacheStep(request, cache, total),
    ...skipped.map((tier) => ({ name: Object.values(tier)[0], what: "skipped", tone: "plain", text: Object.values(tier).slice(1).join(" ") })),
    ...attempts.map((attempt) => attemptStep(attempt, total)),
  ];
  return [
    h("ol", { class: "waterfall", "aria-label": "Steps, in order" }, steps.map(step)),
    h("div", { class: "waterfall-scale", "aria-hidden": "true" }, h("span", {}, "0"), h("span", {}, duration(total / 2)), h("span", {}, duration(total))),
    attempts.some((a) => !a.is_placed) && h("p", { class: "note" }, "This ledger does not say when each call began; they are drawn one after the other."),
    attempts.length > 0 && attemptTable(attempts),
  ];
}

function cacheStep({ cache, latency_ms: took, ttft_ms: first }, detail, total) {
  const isHit = cache === "exact" || cache === "semantic";
  const more = Object.entries(detail).filter(([name, value]) => name !== "state" && ["string", "number"].includes(typeof value));
  return {
    name: "caches", what: isHit ? `${cache} hit` : cache, tone: isHit ? "good" : "plain",
    text: [...more.map(([name, value]) => `${name.replaceAll("_", " ")} ${value}`), isHit && duration(took)].filter(Boolean).join(" · "),
    // A hit is all that there was to wait for; of a miss nobody has kept how long the look took.
    bar: isHit ? { from: 0, length: took / total, first: first === null ? null : first / (took || 1) } : undefined,
  };
}

function attemptStep(a, total) {
  const said = [
    a.purpose === "serve" ? null : `for ${a.purpose}`,
    a.confidence === null ? null : `confidence ${a.confidence.toFixed(2)}`,
    a.reason || null,
    `${count(a.tokens)} tokens`,
    `${a.estimated ? "≈ " : ""}${usd(a.cost_nano_usd)}`,
    duration(a.took_ms),
  ];
  return {
    name: a.model, what: a.outcome.replaceAll("_", " "), tone: OUTCOMES[a.outcome] ?? "bad", text: said.filter(Boolean).join(" · "),
    bar: { from: a.started_ms / total, length: a.took_ms / total, first: a.ttft_ms === null ? null : a.ttft_ms / (a.took_ms || 1) },
  };
}

function step({ name, what, tone, text, bar }) {
  const wide = (part) => `${(Math.min(1, Math.max(0, part)) * 100).toFixed(2)}%`;
  return h("li", {},
    h("div", { class: "step-name" }, h("bdi", {}, name), badge(what, tone)),
    h("div", { class: "step-track", "aria-hidden": "true" }, bar && h("div", {
      class: `step-bar ${tone}`, vars: { from: wide(bar.from), length: wide(Math.max(bar.length, 0.004)), first: wide(bar.first ?? 0) },
    }, bar.first === null ? null : h("span", { class: "step-first" }))),
    h("div", { class: "step-text" }, text));
}

function attemptTable(attempts) {
  const columns = [
    { name: "Model", text: (a) => a.model, cell: (a) => h("bdi", {}, a.model) },
    { name: "Provider", text: (a) => a.provider },
    { name: "Purpose", text: (a) => a.purpose },
    { name: "Outcome", text: (a) => a.outcome.replaceAll("_", " ") },
    { name: "Confidence", number: true, text: (a) => (a.confidence === null ? "–" : a.confidence.toFixed(3)) },
    { name: "Began", number: true, text: (a) => duration(a.started_ms) },
    { name: "Took", number: true, text: (a) => duration(a.took_ms) },
    { name: "First token", number: true, text: (a) => duration(a.ttft_ms) },
    { name: "Tokens", number: true, text: (a) => count(a.tokens) },
    { name: "Cost", number: true, text: (a) => usdExact(a.cost_nano_usd) },
    { name: "Paid by", text: (a) => a.payer },
    { name: "Price from", text: (a) => `${a.price_source}${a.price_dated ? ` of ${a.price_dated}` : ""}` },
  ];
  return h("details", { class: "as-table" }, h("summary", {}, "Show as a table"), dataTable({ id: "attempts", caption: "Calls", columns, rows: attempts }));
}

function headerPart(headers) {
  const pairs = Object.entries(headers);
  if (pairs.length === 0) return null;
  return h("details", { class: "folded" }, h("summary", {}, "Response headers"), facts(pairs.map(([name, value]) => [name, h("code", {}, value)])));
}

function textPart({ texts, texts_stored: isStored }) {
  if (texts.length === 0) {
    return h("p", { class: "note" }, isStored ? "No text was stored of this request: only drawn audits keep theirs."
      : ["No text is stored: the policy does not set ", h("code", {}, "privacy.store_texts"), "."]);
  }
  return h("details", { class: "folded" }, h("summary", {}, "Texts, with secrets taken out"), texts.map((each) => h("article", { class: "text" },
    h("h4", {}, h("bdi", {}, each.model), each.score === null ? "" : ` · score ${percent(each.score)} by ${each.labeller}`),
    (each.messages ?? []).map((message) => h("div", { class: "said" }, h("span", { class: "kind" }, String(message.role ?? "")), h("pre", { dir: "auto" }, spoken(message.content)))),
    each.response !== null && h("div", { class: "said answer" }, h("span", { class: "kind" }, "answer"), h("pre", { dir: "auto" }, each.response)))));
}

const spoken = (content) => (typeof content === "string" ? content : JSON.stringify(content, null, 1));
