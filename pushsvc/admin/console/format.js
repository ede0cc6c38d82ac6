// Numbers, times and JSON as people read them. Pure.

const NONE = "–";

/** A whole number: 12,345. */
export function count(value) {
  return value == null ? NONE : Math.round(value).toLocaleString("en");
}

/** A number that may be a fraction, such as one per second: 0.3, 42, 1,234, 1.2 M. */
export function amount(value) {
  if (value == null || Number.isNaN(value)) return NONE;
  if (value >= 999_950) return `${(value / 1e6).toFixed(1)} M`;
  if (value === 0 || value >= 99.95) return count(value);
  return value < 0.05 ? value.toPrecision(1) : trim(value.toFixed(1));
}

/** A length of time in seconds: 34 ms, 1.2 s, 2 min 5 s, 3 h 12 min, 5 d 4 h. */
export function duration(seconds) {
  if (seconds == null || Number.isNaN(seconds)) return NONE;
  if (seconds < 0) return `−${duration(-seconds)}`;
  if (seconds < 0.0095) return `${trim((seconds * 1000).toFixed(1))} ms`;
  if (seconds < 0.9995) return `${Math.round(seconds * 1000)} ms`;
  if (seconds < 9.95) return `${trim(seconds.toFixed(1))} s`;
  const whole = Math.round(seconds);
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return two(whole, 60, "min", 1, "s");
  if (whole < 86400) return two(whole, 3600, "h", 60, "min");
  return two(whole, 86400, "d", 3600, "h");
}

function two(whole, large, largeUnit, small, smallUnit) {
  const rest = Math.floor((whole % large) / small);
  return `${Math.floor(whole / large)} ${largeUnit}${rest ? ` ${rest} ${smallUnit}` : ""}`;
}

function trim(text) {
  return text.replace(/\.0+$/, "");
}

/** How long ago: "just now", "34 s ago"; what lies ahead: "in 5 min". */
export function ago(milliseconds, now) {
  const seconds = (now - milliseconds) / 1000;
  if (Math.abs(seconds) < 1) return "just now";
  const length = duration(Math.floor(Math.abs(seconds)));
  return seconds > 0 ? `${length} ago` : `in ${length}`;
}

/** The time of day, UTC: 19:35:24. */
export function clock(milliseconds) {
  return new Date(milliseconds).toISOString().slice(11, 19);
}

/** Date and time, UTC: 2026-11-22 19:35:24.123. */
export function stamp(milliseconds) {
  return new Date(milliseconds).toISOString().replace("T", " ").slice(0, -1);
}

/** JSON, indented. */
export function pretty(value) {
  return visible(JSON.stringify(value, null, 2));
}

const TURNING = /[\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]/g;

/** A text in which characters that turn the direction of others are shown by their number. */
export function visible(text) {
  return text.replace(TURNING, (each) => `\\u${each.charCodeAt(0).toString(16).padStart(4, "0")}`);
}

/** A name within a sentence, where its letters cannot reorder those around it; see `bdi` for one that stands alone. */
export function isolated(name) {
  return /^[\x20-\x7e]*$/.test(name) ? name : `\u2068${visible(name)}\u2069`;
}

/** "1 node", "2 nodes". */
export function plural(number, noun) {
  return `${count(number)} ${noun}${number === 1 ? "" : "s"}`;
}
