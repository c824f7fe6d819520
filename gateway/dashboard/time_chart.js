// Values over time as lines or as stacked bars. A slider goes along them by keyboard, and a table
// says the same for whoever does not see it.

import { freshId, h, refill, s } from "./dom.js";
import { day, dayAndClock } from "./format.js";
import { linear, marks, timeMarks } from "./scale.js";

const HEIGHT = 210;
const EDGE = { left: 54, right: 10, top: 10, bottom: 24 };
const PIXELS_A_LABEL = 84;

/**
 * Draw `series` of `{name, tone, values}` at `times` (milliseconds, each the beginning of a step).
 * `kind` is "lines" or "bars"; `format` writes a value, `axis` a short one.
 */
export function timeChart(asked) {
  const chart = { ...asked, at: null, titleId: freshId("chart") };
  const plot = h("div", {
    class: "plot", role: "slider", tabindex: "0", "aria-labelledby": chart.titleId, "data-key": `plot-${asked.id}`,
    "aria-valuemin": 0, "aria-valuemax": Math.max(0, asked.times.length - 1), "aria-valuenow": asked.times.length - 1,
  });
  const readout = h("div", { class: "readout", hidden: true });
  chart.plot = plot;
  chart.readout = readout;
  listen(chart);
  point(chart, null);
  new ResizeObserver(() => draw(chart)).observe(plot);
  return h(
    "figure", { class: "chart" },
    h("figcaption", {}, h("span", { id: chart.titleId, class: "chart-title" }, asked.title), legend(asked)),
    h("div", { class: "plot-holder" }, plot, readout),
    table(asked),
  );
}

function legend({ series }) {
  if (series.length < 2) return null;
  return h("ul", { class: "legend" }, series.map(({ name, tone }) => h("li", {}, h("span", { class: `swatch ${tone}` }), name)));
}

function table({ id, title, times, series, format, step }) {
  const details = h("details", { class: "as-table", "data-key": `values-${id}` }, h("summary", { "data-key": `summary-${id}` }, "Show as a table"));
  details.addEventListener("toggle", () => {
    if (!details.open || details.childElementCount > 1) return; // made when it is first wanted
    const rows = times.map((at, index) =>
      h("tr", {}, h("th", { scope: "row" }, label(at, step)), series.map(({ values }) => h("td", { class: "number" }, format(values[index])))));
    details.append(h("div", { class: "table-holder short", role: "region", tabindex: "0", "aria-label": title }, h(
      "table", {}, h("caption", { class: "unseen" }, title),
      h("thead", {}, h("tr", {}, h("th", { scope: "col" }, "Time (UTC)"), series.map(({ name }) => h("th", { scope: "col", class: "number" }, name)))),
      h("tbody", {}, rows),
    )));
  });
  return details;
}

const label = (at, step) => (step === "day" ? day(at) : dayAndClock(at));

function draw(chart) {
  const { plot, times, series, kind, axis, step } = chart;
  const width = Math.round(plot.clientWidth);
  if (width === 0) return;
  const length = step === "day" ? 86_400_000 : 3_600_000;
  const from = times[0];
  const to = times.at(-1) + (kind === "bars" ? length : 0);
  const x = linear(from, Math.max(to, from + 1), EDGE.left, width - EDGE.right);
  const ticks = marks(most(chart));
  const y = linear(0, ticks.at(-1), HEIGHT - EDGE.bottom, EDGE.top);
  chart.place = { x, y, width, length: kind === "bars" ? length : 0 };
  const labels = timeMarks(from, to, Math.max(2, Math.floor((width - EDGE.left) / PIXELS_A_LABEL)));
  const shapes = kind === "bars" ? bars(chart, x, y, length) : series.map((each) => line(each, times, x, y));
  chart.cross = s("line", { class: "cross", y1: EDGE.top, y2: HEIGHT - EDGE.bottom, visibility: "hidden" });
  refill(plot, s(
    "svg", { width, height: HEIGHT, viewBox: `0 0 ${width} ${HEIGHT}`, "aria-hidden": "true" },
    ticks.map((tick) => [
      s("line", { class: tick === 0 ? "base" : "grid", x1: EDGE.left, x2: width - EDGE.right, y1: y(tick), y2: y(tick) }),
      s("text", { class: "tick", x: EDGE.left - 8, y: y(tick) + 4, "text-anchor": "end" }, axis(tick)),
    ]),
    labels.map(({ at, text }) => s("text", { class: "tick", x: x(at), y: HEIGHT - 6, "text-anchor": anchor(x(at), width) }, text)),
    shapes, chart.cross,
  ));
  if (chart.at !== null) point(chart, chart.at);
}

const anchor = (place, width) => (place > width - 36 ? "end" : place < EDGE.left + 14 ? "start" : "middle");

function most({ kind, series, times }) {
  const sum = (index) => series.reduce((total, { values }) => total + (values[index] ?? 0), 0);
  const high = (index) => Math.max(0, ...series.map(({ values }) => values[index] ?? 0));
  return times.reduce((found, _, index) => Math.max(found, kind === "bars" ? sum(index) : high(index)), 0);
}

function bars({ series, times }, x, y, length) {
  const width = Math.max(1, x(times[0] + length) - x(times[0]) - 1);
  const paths = series.map(() => []);
  times.forEach((at, index) => {
    let below = 0;
    series.forEach(({ values }, which) => {
      const value = values[index] ?? 0;
      if (value > 0) {
        const [left, top, height] = [x(at) + 0.5, y(below + value), y(below) - y(below + value)];
        paths[which].push(`M${left.toFixed(1)} ${top.toFixed(1)}h${width.toFixed(1)}v${height.toFixed(1)}h${(-width).toFixed(1)}z`);
      }
      below += value;
    });
  });
  return series.map(({ tone }, which) => s("path", { class: `bar ${tone}`, d: paths[which].join("") }));
}

function line({ values, tone }, times, x, y) {
  let isDrawing = false;
  const steps = values.map((value, index) => {
    if (value === null || value === undefined) {
      isDrawing = false;
      return "";
    }
    const step = `${isDrawing ? "L" : "M"}${x(times[index]).toFixed(1)} ${y(value).toFixed(1)}`;
    const isAlone = !isDrawing && (values[index + 1] ?? null) === null;
    isDrawing = true;
    return isAlone ? `${step}h.01` : step; // a dot
  });
  return s("path", { class: `line ${tone}`, d: steps.join("") });
}

// The slider

const MOVES = { ArrowLeft: -1, ArrowRight: 1, ArrowDown: -1, ArrowUp: 1, PageDown: -7, PageUp: 7, Home: -Infinity, End: Infinity };

function listen(chart) {
  const { plot, times } = chart;
  const last = times.length - 1;
  plot.addEventListener("keydown", (event) => {
    if (event.key === "Escape") point(chart, null);
    if (!(event.key in MOVES) || last < 0) return;
    event.preventDefault();
    point(chart, Math.min(last, Math.max(0, (chart.at ?? last) + MOVES[event.key])));
  });
  plot.addEventListener("pointermove", (event) => point(chart, nearest(chart, event)));
  plot.addEventListener("pointerleave", () => point(chart, null));
  plot.addEventListener("blur", () => point(chart, null));
  // After a refresh one reads on where one was, if that time is still shown.
  plot.addEventListener("frugal:at", ({ detail }) => {
    const index = times.indexOf(Number(detail));
    if (index >= 0) point(chart, index);
  });
}

function nearest({ plot, times, place }, event) {
  if (!place) return null;
  const at = event.clientX - plot.getBoundingClientRect().left;
  const middle = (index) => place.x(times[index] + place.length / 2);
  let found = 0;
  times.forEach((_, index) => {
    if (Math.abs(middle(index) - at) < Math.abs(middle(found) - at)) found = index;
  });
  return found;
}

/** Show the values at one step, or none. */
function point(chart, at) {
  const { plot, readout, times, series, format, step } = chart;
  const spoken = at ?? times.length - 1;
  chart.at = at;
  if (at === null) delete plot.dataset.at;
  else plot.dataset.at = times[at];
  plot.setAttribute("aria-valuenow", Math.max(0, spoken));
  plot.setAttribute("aria-valuetext", spoken < 0 ? "no values" :
    `${label(times[spoken], step)}: ${series.map(({ name, values }) => `${name} ${format(values[spoken])}`).join(", ")}`);
  readout.hidden = at === null || !chart.place;
  chart.cross?.setAttribute("visibility", readout.hidden ? "hidden" : "visible");
  if (readout.hidden) return;
  const place = chart.place.x(times[at] + chart.place.length / 2);
  chart.cross.setAttribute("x1", place);
  chart.cross.setAttribute("x2", place);
  const isRight = place > chart.place.width / 2;
  readout.classList.toggle("leftwards", isRight);
  readout.style.setProperty("--x", `${isRight ? chart.place.width - place : place}px`);
  refill(readout, h("strong", {}, label(times[at], step)), h("dl", {}, series.map(({ name, tone, values }) =>
    h("div", {}, h("dt", {}, h("span", { class: `swatch ${tone}` }), name), h("dd", {}, format(values[at]))))));
}
