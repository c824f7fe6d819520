// Numbers, money and times as they are shown: in English, and in UTC as the ledger counts its days.

const NANO = 1e9;
const DAY_MS = 86_400_000;

const whole = new Intl.NumberFormat("en-US", { maximumFractionDigits: 0 });
const short = new Intl.NumberFormat("en-US", { notation: "compact", maximumFractionDigits: 1 });
const cents = new Intl.NumberFormat("en-US", { minimumFractionDigits: 2, maximumFractionDigits: 2 });
const fine = new Intl.NumberFormat("en-US", { minimumSignificantDigits: 3, maximumSignificantDigits: 3, useGrouping: false });

const UNKNOWN = "–";
const isMissing = (value) => value === null || value === undefined || Number.isNaN(value);

/** 12,345 */
export const count = (value) => (isMissing(value) ? UNKNOWN : whole.format(value));

/** 12.3K */
export const compact = (value) =>
  isMissing(value) ? UNKNOWN : Math.abs(value) < 10_000 ? whole.format(value) : short.format(value);

/** Nano-dollars as $1,234.50, or with three digits that count where it is less than a dime. */
export function usd(nano) {
  if (isMissing(nano)) return UNKNOWN;
  const dollars = Math.abs(nano) / NANO;
  const sign = nano < 0 ? "−" : "";
  if (dollars === 0) return "$0.00";
  if (dollars >= 100_000) return `${sign}$${whole.format(dollars)}`;
  if (dollars >= 0.1) return `${sign}$${cents.format(dollars)}`;
  return `${sign}$${fine.format(dollars)}`;
}

/** Nano-dollars for an axis. */
export function usdShort(nano) {
  const dollars = nano / NANO;
  if (dollars === 0) return "$0";
  if (Math.abs(dollars) >= 1000) return `$${short.format(dollars)}`;
  return `$${new Intl.NumberFormat("en-US", { maximumSignificantDigits: 2, useGrouping: false }).format(dollars)}`;
}

/** Nano-dollars to the last digit, for whoever looks closer. */
export function usdExact(nano) {
  if (isMissing(nano)) return UNKNOWN;
  const all = BigInt(Math.round(Math.abs(nano)));
  const rest = String(all % 1_000_000_000n).padStart(9, "0").replace(/0{1,7}$/, "");
  return `${nano < 0 ? "−" : ""}$${(all / 1_000_000_000n).toLocaleString("en-US")}.${rest}`;
}

/** A share from 0 to 1 as 12.3%. */
export function percent(share) {
  if (isMissing(share)) return UNKNOWN;
  const points = share * 100;
  const size = Math.abs(points);
  const digits = size === 0 || size >= 99.95 ? 0 : size < 1 ? 2 : 1;
  return `${points.toFixed(digits)}%`.replace("-", "−");
}

/** Milliseconds as 12 ms, 1.24 s or 2 min. */
export function duration(ms) {
  if (isMissing(ms)) return UNKNOWN;
  if (ms < 1) return `${ms.toFixed(ms === 0 ? 0 : 2)} ms`;
  if (ms < 1000) return `${ms < 10 ? ms.toFixed(1) : Math.round(ms)} ms`;
  if (ms < 60_000) return `${(ms / 1000).toFixed(ms < 10_000 ? 2 : 1)} s`;
  if (ms < 3_600_000) return `${(ms / 60_000).toFixed(1)} min`;
  if (ms < 2 * DAY_MS) return `${(ms / 3_600_000).toFixed(1)} h`;
  return `${(ms / DAY_MS).toFixed(1)} days`;
}

const MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
const two = (value) => String(value).padStart(2, "0");

/** 14:05 */
export const clock = (ms) => {
  const at = new Date(ms);
  return `${two(at.getUTCHours())}:${two(at.getUTCMinutes())}`;
};

/** 3 Nov */
export const day = (ms) => {
  const at = new Date(ms);
  return `${at.getUTCDate()} ${MONTHS[at.getUTCMonth()]}`;
};

/** 3 Nov, 14:05 */
export const dayAndClock = (ms) => (isMissing(ms) ? UNKNOWN : `${day(ms)}, ${clock(ms)}`);

/** 3 Nov, 14:05:09 */
export const dayAndSecond = (ms) => `${dayAndClock(ms)}:${two(new Date(ms).getUTCSeconds())}`;

/** 2026-11-03 14:05:09 */
export function moment(ms) {
  if (isMissing(ms)) return UNKNOWN;
  return new Date(ms).toISOString().slice(0, 19).replace("T", " ");
}

/** A time as `since` and `until` take it. */
export const iso = (ms) => new Date(ms).toISOString().replace(/\.\d+Z$/, "Z");

/** How much more or less than before, as +12% or −3%; nothing where there was nothing before. */
export function change(now, before) {
  if (isMissing(now) || isMissing(before) || before === 0) return null;
  const points = Math.round(((now - before) / Math.abs(before)) * 100);
  if (points > 999) return `×${(now / before).toFixed(0)}`;
  return `${points > 0 ? "+" : points < 0 ? "−" : "±"}${Math.abs(points)}%`;
}
