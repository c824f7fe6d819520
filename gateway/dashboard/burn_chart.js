// What is left of a budget in its window, what is set aside, and where it is heading.

import { h, refill, s } from "./dom.js";
import { usd, usdShort } from "./format.js";
import { linear, marks, timeMarks } from "./scale.js";

const HEIGHT = 150;
const EDGE = { left: 50, right: 10, top: 8, bottom: 22 };

/** Draw one budget of the reports; the words beside it say the same. */
export function burnChart(budget, now) {
  const holder = h("div", { class: "burn", role: "img", "aria-label": inWords(budget) });
  new ResizeObserver(() => draw(holder, budget, now)).observe(holder);
  return holder;
}

function inWords(budget) {
  const { forecast } = budget;
  const heading = forecast
    ? ` Forecast for the end: ${usd(forecast.spend_nano_usd)}, between ${usd(forecast.low_nano_usd)} and ${usd(forecast.high_nano_usd)}.`
    : "";
  const aside = budget.reserved_nano_usd > 0 ? ` Set aside: ${usd(budget.reserved_nano_usd)}.` : "";
  return `Left of ${usd(budget.limit_nano_usd)}: ${usd(budget.limit_nano_usd - budget.spent_nano_usd)}.${aside}${heading}`;
}

function draw(holder, budget, now) {
  const width = Math.round(holder.clientWidth);
  if (width === 0) return;
  const from = Date.parse(budget.start);
  const to = budget.end ? Date.parse(budget.end) : Math.max(now, ...budget.burn_down.map((p) => Date.parse(p.t)));
  const limit = budget.limit_nano_usd;
  const x = linear(from, to, EDGE.left, width - EDGE.right);
  const ticks = marks(limit, 3);
  const y = linear(0, ticks.at(-1), HEIGHT - EDGE.bottom, EDGE.top);
  const left = budget.burn_down.map((point) => [x(Date.parse(point.t)), y(Math.max(0, point.left_nano_usd))]);
  const until = x(Math.min(now, to));
  const end = left.length ? left.at(-1)[1] : y(limit);
  const line = [[x(from), y(limit)], ...left, [until, end]].map(([a, b], i) => `${i ? "L" : "M"}${a.toFixed(1)} ${b.toFixed(1)}`).join("");
  refill(holder, s(
    "svg", { width, height: HEIGHT, viewBox: `0 0 ${width} ${HEIGHT}`, "aria-hidden": "true" },
    ticks.map((tick) => [
      s("line", { class: tick === 0 ? "base" : "grid", x1: EDGE.left, x2: width - EDGE.right, y1: y(tick), y2: y(tick) }),
      s("text", { class: "tick", x: EDGE.left - 8, y: y(tick) + 4, "text-anchor": "end" }, usdShort(tick)),
    ]),
    timeMarks(from, to, Math.max(2, Math.floor((width - EDGE.left) / 84))).map(({ at, text }) =>
      s("text", { class: "tick", x: x(at), y: HEIGHT - 5, "text-anchor": x(at) > width - 36 ? "end" : "middle" }, text)),
    s("path", { class: "area", d: `${line}L${until.toFixed(1)} ${y(0)}L${x(from)} ${y(0)}z` }),
    reserved(budget, x, y, Math.min(now, to), end),
    s("path", { class: "line accent", d: line }),
    // What would be spent beyond the limit lies below the edge of this inner drawing.
    s("svg", { x: 0, y: 0, width, height: HEIGHT - EDGE.bottom, class: "within" }, heading(budget, x, y, until, end, to)),
    s("line", { class: "now", x1: until, x2: until, y1: EDGE.top, y2: HEIGHT - EDGE.bottom }),
  ));
}

/** What requests under way have set aside, as a part of what is left. */
function reserved(budget, x, y, now, end) {
  const held = budget.reserved_nano_usd ?? 0;
  if (held <= 0) return null;
  const left = Math.max(0, budget.limit_nano_usd - budget.spent_nano_usd - held);
  return s("rect", { class: "reserved", x: x(now) - 5, y: end, width: 10, height: Math.max(1, y(left) - end) });
}

function heading({ forecast, limit_nano_usd: limit }, x, y, until, end, to) {
  if (!forecast || x(to) <= until) return null;
  const leftAt = (spent) => y(limit - spent).toFixed(1);
  const right = x(to).toFixed(1);
  const start = `M${until.toFixed(1)} ${end.toFixed(1)}`;
  return [
    s("path", { class: "forecast-range", d: `${start}L${right} ${leftAt(forecast.low_nano_usd)}V${leftAt(forecast.high_nano_usd)}z` }),
    s("path", { class: "forecast", d: `${start}L${right} ${leftAt(forecast.spend_nano_usd)}` }),
  ];
}
