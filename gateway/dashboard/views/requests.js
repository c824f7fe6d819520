// Requests: to filter, to search, and to open one of them.

import { changed, go } from "../address.js";
import { get } from "../api.js";
import { h, refill } from "../dom.js";
import { count, dayAndSecond, duration, moment, usd, usdExact } from "../format.js";
import { badge, csvButton, dataTable, empty, section } from "../parts.js";
import { STATE_TONES } from "../tones.js";
import { openRequest } from "./one_request.js";

export const isLive = false; // a list that moves under the hand is worse than one that is old

const FILTERS = ["route", "model", "key", "tenant", "tag"];
const STATES = ["settled", "abandoned", "failed", "open"];
const CACHES = ["exact", "semantic", "miss", "bypass"];
const AT_ONCE = 50;

export async function load({ query, params }, signal) {
  const asked = { ...query, limit: AT_ONCE };
  for (const name of [...FILTERS, "state", "cache", "q"]) asked[name] = params.get(name);
  return { asked, page: await get("reports/requests", asked, signal) };
}

export function draw({ asked, page }, { params }) {
  const rows = [...page.data];
  const list = h("div");
  const more = h("div", { class: "more" });
  const tools = h("div", { class: "tools" });
  let { next, searched_to: searchedTo } = page;

  function fill() {
    const nothing = isFiltered(params) ? ["No request matches", "Take a filter away, or look at a longer time."]
      : ["No requests in this time", "Send one to the public port, or look at a longer time."];
    refill(list, rows.length ? dataTable({ id: "requests", caption: "Requests, newest first", columns: COLUMNS, rows })
      : h("div", { class: "panel" }, next ? empty("Nothing yet", "Nothing was found as far back as was searched.") : empty(...nothing)));
    refill(tools, isFiltered(params) && clearLink(), csvButton("requests", CSV, rows));
    refill(more,
      next && h("button", { type: "button", "data-key": "more", onclick: goOn }, rows.length ? "Show more" : "Search further back"),
      h("p", { class: "note", role: "status" }, `${count(rows.length)} shown${next && searchedTo ? `, back to ${moment(Date.parse(searchedTo))}` : ""}`));
  }

  async function goOn(event) {
    event.target.disabled = true;
    try {
      const further = await get("reports/requests", { ...asked, cursor: next });
      rows.push(...further.data);
      ({ next, searched_to: searchedTo } = further);
      fill();
      more.querySelector("button")?.focus();
    } catch (error) {
      refill(more, h("p", { class: "problem", role: "alert" }, error.message), h("button", { type: "button", onclick: goOn }, "Try again"));
    }
  }

  fill();
  const opened = params.get("open");
  const stack = h("div", { class: "stack" }, filterForm(params),
    section("Newest first", { tools }, list, more), opened && openRequest(opened));
  list.addEventListener("click", (event) => openHere(event, stack));
  return stack;
}

/** Open a row over the list, which stays as it is. */
function openHere(event, stack) {
  const link = event.target.closest("a[data-request]");
  if (!link || event.ctrlKey || event.metaKey || event.shiftKey) return;
  event.preventDefault();
  history.pushState(null, "", link.href);
  stack.append(openRequest(link.dataset.request));
}

const isFiltered = (params) => [...FILTERS, "state", "cache", "q"].some((name) => params.get(name));

function clearLink() {
  const clear = Object.fromEntries([...FILTERS, "state", "cache", "q", "open"].map((name) => [name, null]));
  return h("a", { class: "button", href: changed(clear), "data-key": "filter-clear" }, "Clear filters");
}

function filterForm(params) {
  const text = (name, title) => h("label", { class: "field" }, h("span", {}, title),
    h("input", { name, value: params.get(name) ?? "", spellcheck: "false", autocapitalize: "off", autocomplete: "off", "data-key": `filter-${name}`, dir: "auto" }));
  const choice = (name, title, values) => h("label", { class: "field" }, h("span", {}, title),
    h("select", { name, "data-key": `filter-${name}`, onchange: (event) => event.target.form.requestSubmit() },
      h("option", { value: "" }, "any"), values.map((value) => h("option", { value, selected: params.get(name) === value }, value))));
  const submit = (event) => {
    event.preventDefault();
    const told = Object.fromEntries(new FormData(event.target));
    go(changed({ ...told, open: null }));
  };
  return h("form", { class: "filters requests-filters", role: "search", "aria-label": "Requests", onsubmit: submit },
    h("label", { class: "field wide" }, h("span", {}, "Search"),
      h("input", { name: "q", type: "search", value: params.get("q") ?? "", placeholder: "request id, error, path …", "data-key": "filter-q", dir: "auto" })),
    FILTERS.map((name) => text(name, name[0].toUpperCase() + name.slice(1))),
    choice("state", "State", STATES), choice("cache", "Cache", CACHES),
    h("button", { type: "submit", class: "primary", "data-key": "filter-go" }, "Filter"));
}

const COLUMNS = [
  { name: "Time (UTC)", text: (r) => moment(Date.parse(r.at)),
    cell: (r) => h("a", { href: changed({ open: r.request_id }), "data-key": `row-${r.request_id}`, "data-request": r.request_id, class: "when", "aria-label": `Open the request of ${dayAndSecond(Date.parse(r.at))}` }, dayAndSecond(Date.parse(r.at))) },
  { name: "State", text: (r) => r.state, cell: (r) => badge(r.state, STATE_TONES[r.state]) },
  { name: "Route", text: (r) => r.route, cell: (r) => h("bdi", {}, r.route) },
  { name: "Answered by", text: (r) => r.model, cell: (r) => h("bdi", {}, r.model || "–") },
  { name: "Cache", text: (r) => r.cache },
  { name: "Path", text: (r) => r.path, cell: (r) => h("bdi", { class: "path", title: r.path }, r.path || "–") },
  { name: "Tokens", number: true, text: (r) => count(tokens(r.usage)) },
  { name: "Cost", number: true, text: (r) => `${r.estimated ? "≈ " : ""}${usd(r.cost_nano_usd)}`, exact: (r) => `${usdExact(r.cost_nano_usd)}${r.estimated ? `, estimated between ${usdExact(r.lower_nano_usd)} and ${usdExact(r.upper_nano_usd)}` : ""}` },
  { name: "Latency", number: true, text: (r) => duration(r.latency_ms) },
  { name: "Who", text: (r) => `${r.key}, ${r.tenant}`, cell: (r) => [h("bdi", {}, r.key), h("span", { class: "note" }, " · ", h("bdi", {}, r.tenant))] },
  { name: "Tags", text: (r) => r.tags.join(", "), cell: (r) => r.tags.map((tag) => [h("bdi", { class: "tag" }, tag), " "]) },
];

const tokens = (usage) => Object.values(usage).reduce((sum, each) => sum + each, 0);

const CSV = [
  ...["request_id", "at", "state", "status", "route", "model", "requested_model", "cache", "path", "tenant", "key"].map((name) => ({ name, text: (r) => r[name] })),
  { name: "tags", text: (r) => r.tags.join(" ") },
  ...["input", "cached_input", "cache_write", "output", "reasoning"].map((name) => ({ name, text: (r) => r.usage[name] })),
  ...["cost_nano_usd", "saved_nano_usd", "estimated", "lower_nano_usd", "upper_nano_usd", "latency_ms", "ttft_ms", "error"].map((name) => ({ name, text: (r) => r[name] })),
];
