// Which colour a series has: the same one wherever it stands in its list.

const TONES = ["one", "two", "three", "four", "five", "six", "seven"];

/** The tone of the series at a place; what is summed up as "other" is grey. */
export const toneAt = (index) => TONES[index] ?? "other";

/** How a state of a request is shown. */
export const STATE_TONES = { settled: "good", open: "plain", abandoned: "warn", failed: "bad" };

/** How a breaker's state is shown. */
export const BREAKER_TONES = { closed: "good", "half-open": "warn", half_open: "warn", open: "bad" };
