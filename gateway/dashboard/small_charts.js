// Small pictures beside numbers: a line without axes, an interval, a share, a calibration curve.

import { h, s } from "./dom.js";
import { percent } from "./format.js";
import { linear, marks } from "./scale.js";

/** A line as wide as its holder, only to show the way; the number beside it says the rest. */
export function spark(values) {
  const known = values.map((value) => value ?? 0);
  const most = Math.max(...known, 0);
  if (known.length < 2 || most === 0) return null;
  const x = linear(0, known.length - 1, 0, 100);
  const y = linear(0, most, 23, 1);
  const d = known.map((value, index) => `${index ? "L" : "M"}${x(index).toFixed(1)} ${y(value).toFixed(1)}`).join("");
  return s("svg", { class: "spark", viewBox: "0 0 100 24", preserveAspectRatio: "none", "aria-hidden": "true" }, s("path", { d }));
}

/**
 * An estimate with its interval on a scale of its own, and a limit where there is one. `bad` marks
 * an interval that passes the limit.
 */
export function interval({ low, value, high, limit, format, label, isBad, limitWord = "allowed" }) {
  const ends = [low, high, limit, value, 0].filter((each) => each !== null && each !== undefined);
  const from = Math.min(...ends);
  const to = Math.max(...ends);
  const room = (to - from || 1) * 0.06;
  const x = linear(from < 0 ? from - room : 0, to + room, 4, 296);
  const y = 16;
  return h(
    "div", { class: `interval ${isBad ? "bad" : ""}`, role: "img", "aria-label": label },
    s(
      "svg", { viewBox: "0 0 300 32", "aria-hidden": "true" },
      s("line", { class: "base", x1: 2, x2: 298, y1: y, y2: y }),
      s("line", { class: "zero", x1: x(0), x2: x(0), y1: y - 5, y2: y + 5 }),
      s("line", { class: "reach", x1: x(low), x2: x(high), y1: y, y2: y }),
      [low, high].map((end) => s("line", { class: "end", x1: x(end), x2: x(end), y1: y - 6, y2: y + 6 })),
      value !== null && value !== undefined && s("circle", { class: "estimate", cx: x(value), cy: y, r: 5 }),
      limit !== null && limit !== undefined && s("path", { class: "limit", d: `M${x(limit)} 2v28` }),
    ),
    h("div", { class: "interval-words", "aria-hidden": "true" }, h("span", {}, `${format(low)} to ${format(high)}`),
      limit !== null && limit !== undefined && h("span", {}, `┊ ${format(limit)} ${limitWord}`)),
  );
}

/** A share as a bar, with a second part after the first. */
export function meter({ share, more = 0, tone = "", label }) {
  const wide = (part) => `${(Math.min(1, Math.max(0, part)) * 100).toFixed(2)}%`;
  return h("div", { class: `meter ${tone}`, role: "img", "aria-label": label },
    h("div", { class: "meter-first", vars: { part: wide(share) } }),
    more > 0 && h("div", { class: "meter-second", vars: { part: wide(Math.min(more, 1 - share)) } }));
}

const SIDE = 230;
const EDGE = { left: 38, right: 8, top: 8, bottom: 34 };

/** What confidences promised against what they kept; on the diagonal they are honest. */
export function reliability(bins, label) {
  const x = linear(0, 1, EDGE.left, SIDE - EDGE.right);
  const y = linear(0, 1, SIDE - EDGE.bottom, EDGE.top);
  const largest = Math.max(1, ...bins.map((bin) => bin.drafts));
  const ticks = marks(1, 4);
  return s(
    "svg", { class: "reliability", viewBox: `0 0 ${SIDE} ${SIDE}`, role: "img", "aria-label": label },
    ticks.map((tick) => [
      s("line", { class: "grid", x1: EDGE.left, x2: SIDE - EDGE.right, y1: y(tick), y2: y(tick) }),
      s("text", { class: "tick", x: EDGE.left - 6, y: y(tick) + 4, "text-anchor": "end" }, percent(tick).replace(".0", "")),
      s("text", { class: "tick", x: x(tick), y: SIDE - EDGE.bottom + 14, "text-anchor": tick === 1 ? "end" : "middle" }, tick),
    ]),
    s("line", { class: "diagonal", x1: x(0), y1: y(0), x2: x(1), y2: y(1) }),
    s("text", { class: "tick", x: (EDGE.left + SIDE) / 2, y: SIDE - 4, "text-anchor": "middle" }, "confidence"),
    bins.filter((bin) => bin.drafts > 0).map((bin) => [
      s("line", { class: "whisker", x1: x(bin.mean_confidence), x2: x(bin.mean_confidence), y1: y(bin.share_low), y2: y(bin.share_high) }),
      s("circle", { class: "estimate", cx: x(bin.mean_confidence), cy: y(bin.share_good), r: 2.5 + 4 * Math.sqrt(bin.drafts / largest) }),
    ]),
  );
}
