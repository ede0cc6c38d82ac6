// States have a shape as well as a colour and a word.

import { svg } from "./dom.js";

const SHAPES = {
  ok: ["M8 1.2a6.8 6.8 0 1 0 0 13.6A6.8 6.8 0 0 0 8 1.2Z", "M4.8 8.3l2.2 2.2 4.2-4.6"],
  warn: ["M8 1.4 15.2 14H.8Z", "M8 6v3.6M8 11.6v.4"],
  bad: ["M5 1.2h6L14.8 5v6L11 14.8H5L1.2 11V5Z", "M5.4 5.4l5.2 5.2M10.6 5.4l-5.2 5.2"],
  idle: ["M8 1.2a6.8 6.8 0 1 0 0 13.6A6.8 6.8 0 0 0 8 1.2Z", "M8 4.4V8l2.4 1.8"],
};

/** A small shape: "ok", "warn", "bad" or "idle". The word belongs beside it. */
export function icon(tone) {
  const [body, mark] = SHAPES[tone];
  return svg(
    "svg",
    { class: `icon ${tone}`, viewBox: "0 0 16 16", width: 16, height: 16, "aria-hidden": "true", focusable: "false" },
    svg("path", { class: "body", d: body }),
    svg("path", { class: "mark", d: mark }),
  );
}
