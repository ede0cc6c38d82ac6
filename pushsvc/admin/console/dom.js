// Elements from data. Text is only ever put in as text: what a notification holds can never become markup.

import { visible } from "./format.js";

const SVG = "http://www.w3.org/2000/svg";

/**
 * An HTML element.
 * Of the attributes, functions are listeners (`onclick`), `true` is an empty attribute,
 * `false`, null and undefined are left out; of the children, the last three are too.
 */
export function h(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

/** A name, whose letters cannot reorder what stands around it. */
export function bdi(name) {
  return h("bdi", {}, visible(name));
}

/** An SVG element. */
export function svg(tag, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), attributes, children);
}

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") element.addEventListener(name.slice(2), value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value != null) element.setAttribute(name, value);
  }
  element.append(...children.flat(Infinity).filter((child) => child != null && child !== false));
  return element;
}

/**
 * Replaces what an element holds, and keeps the reader's place:
 * the focus, and which `<details>` are open, of what carries the same `data-key`.
 */
export function replace(element, ...children) {
  const focused = element.contains(document.activeElement) ? key(document.activeElement) : undefined;
  const open = new Set([...element.querySelectorAll("details[open]")].map(key));
  element.replaceChildren(...children.flat(Infinity).filter((child) => child != null && child !== false));
  for (const details of element.querySelectorAll("details[data-key]")) {
    if (open.has(key(details))) details.open = true;
  }
  if (focused) element.querySelector(`[data-key="${CSS.escape(focused)}"]`)?.focus({ preventScroll: true });
}

const key = (element) => element.dataset.key;

/** Tells a screen reader what just happened, in one sentence. */
export function announce(text) {
  const announcer = document.getElementById("announcer");
  if (announcer.textContent !== text) announcer.textContent = text;
}
