// What several views are made of.

import { announce, bdi, h } from "./dom.js";
import { ago, pretty, stamp } from "./format.js";
import { icon } from "./icons.js";
import { showJson } from "./dialogs.js";

/** The frame of a view: its heading, the button for the JSON behind it, and a place for what it says. */
export class Page {
  #answers = new Map();
  #end = new AbortController();
  /** Ends with the view: pass it to requests. */
  signal = this.#end.signal;

  /**
   * @param {string} title
   * @param {string} lead one sentence: what this view is for
   */
  constructor(title, lead, ...actions) {
    this.title = title;
    this.heading = h("h1", { tabindex: -1 }, bdi(title));
    this.body = h("div", { class: "stack" });
    this.element = h("div", { class: "view" },
      h("div", { class: "head" },
        h("div", {}, this.heading, lead && h("p", { class: "soft lead" }, lead)),
        h("div", { class: "row" }, actions,
          h("button", { type: "button", class: "small", onclick: () => showJson([...this.#answers.values()]) }, "JSON"))),
      this.body);
  }

  /** Remembers the newest answer of a path, for the JSON button; `body` is that of a POST. */
  saw(path, answer, body) {
    this.#answers.set(path, { path, answer, body });
    return answer;
  }

  /** Has `stop` called when the view ends. */
  until(stop) {
    this.signal.addEventListener("abort", stop);
  }

  /** Ends the view: nothing of it is awaited any more. */
  close() {
    this.#end.abort();
  }
}

/** A sentence with a shape before it: "ok", "warn", "bad" or "idle". */
export function badge(tone, words) {
  return h("span", { class: `badge ${tone}` }, icon(tone), words);
}

/** A box that says how something went. It is read out too. */
export function notice(tone, ...content) {
  const box = h("div", { class: `notice ${tone}` }, icon(tone), h("div", {}, content));
  announce(box.textContent);
  return box;
}

/** A problem, as a notice. */
export function problemNotice(problem) {
  const wait = problem.retryAfter ? ` Try again in ${Math.ceil(problem.retryAfter)} s.` : "";
  return notice("bad", `${problem.message}${wait}`);
}

/** A time: the instant in full, and how long ago; the latter is kept up to date. */
export function when(time, { full = true } = {}) {
  const at = typeof time === "number" ? time : Date.parse(time);
  const relative = h("span", { class: full ? "soft" : null, "data-ago": at }, ago(at, Date.now()));
  return h("time", { datetime: new Date(at).toISOString(), title: `${stamp(at)} UTC` }, full ? [stamp(at), " "] : null, relative);
}

/** Keeps every "5 s ago" of the page true. */
export function tellTime() {
  const now = Date.now();
  for (const element of document.querySelectorAll("[data-ago]")) element.textContent = ago(Number(element.dataset.ago), now);
}

/**
 * A table in a box that scrolls sideways by itself, also by keyboard, where it is wider than the page.
 * `heads` are texts or elements. On a phone the cells of a row lie below each other, each with its head.
 */
export function table(caption, heads, rows, { unseen = false } = {}) {
  const labels = heads.map((head) => head.textContent ?? head);
  for (const row of rows) [...row.children].forEach((cell, index) => { cell.dataset.label = labels[index]; });
  return h("div", { class: "scroll", tabindex: 0, role: "group", "aria-label": `Table: ${caption}` },
    h("table", { class: "stacks" },
      h("caption", { class: unseen ? "unseen" : null }, caption),
      h("thead", {}, h("tr", {}, heads.map((head) => (head instanceof Node ? head : h("th", { scope: "col" }, head))))),
      h("tbody", {}, rows)));
}

/** JSON as text. */
export function json(value, label) {
  return h("pre", { class: "json", tabindex: 0, role: "group", "aria-label": label }, pretty(value));
}

/** A labelled field with a hint and a place for what is wrong with it. */
export function field(label, input, hint = null) {
  const hintId = `${input.id}-hint`;
  const errorId = `${input.id}-error`;
  const error = h("p", { class: "error", id: errorId, hidden: true });
  input.setAttribute("aria-describedby", hint ? `${hintId} ${errorId}` : errorId);
  const element = h("div", { class: "field" },
    h("label", { for: input.id }, label), input, hint && h("p", { class: "hint", id: hintId }, hint), error);
  return {
    element,
    input,
    /** Shows what is wrong, or, with null, that nothing is. */
    fail(message) {
      error.textContent = message ?? "";
      error.hidden = !message;
      input.setAttribute("aria-invalid", String(Boolean(message)));
      return !message;
    },
  };
}

/** A set of choices of which one is taken. `choices` are `[value, label]`. */
export function choice(name, legend, choices, changed) {
  return h("fieldset", { class: "choices", onchange: changed }, h("legend", {}, legend),
    h("div", { class: "row" }, choices.map(([value, label], index) =>
      h("label", { class: "radio" }, h("input", { type: "radio", name, value, checked: index === 0 }), ` ${label}`))));
}

/** A button, and beside it, in words, why it cannot be used; `reason` is null where it can. */
export function guarded(button, reason) {
  if (!reason) return button;
  button.disabled = true;
  return h("span", { class: "row" }, button, h("span", { class: "soft" }, reason));
}
