// Scales and their marks.

import { clock, day } from "./format.js";

const HOUR_MS = 3_600_000;
const DAY_MS = 24 * HOUR_MS;
const STEPS_MS = [1, 2, 3, 6, 12, 24, 48, 7 * 24, 14 * 24, 30 * 24, 91 * 24].map((hours) => hours * HOUR_MS);

/** Round marks from 0 to at least `most`, about `wanted` of them. */
export function marks(most, wanted = 4) {
  if (!(most > 0)) return [0, 1];
  const rough = most / wanted;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 2.5, 5, 10].find((times) => times * power >= rough) * power;
  return Array.from({ length: Math.ceil(most / step - 1e-9) + 1 }, (_, index) => index * step);
}

/** A function from values to places. */
export const linear = (from, to, start, end) => (value) =>
  start + ((value - from) / (to - from || 1)) * (end - start);

/** Moments worth a label between two others, with their labels. */
export function timeMarks(from, to, most) {
  const step = STEPS_MS.find((each) => (to - from) / each <= most) ?? STEPS_MS.at(-1);
  const found = [];
  for (let at = Math.ceil(from / step) * step; at <= to; at += step) {
    const isDay = step >= DAY_MS || at % DAY_MS === 0;
    found.push({ at, text: isDay ? day(at) : clock(at), isDay });
  }
  return found;
}
