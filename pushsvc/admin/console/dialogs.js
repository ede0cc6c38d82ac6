// What is asked and shown on top of the page. `<dialog>` keeps the focus inside and gives it back.

import { h } from "./dom.js";
import { curl } from "./api.js";
import { pretty } from "./format.js";

/**
 * Asks before something is done that cannot be undone.
 *
 * @param {{title: string, body: (string | Node)[], action: string}} question
 * @returns {Promise<boolean>} whether it was confirmed
 */
export function confirm({ title, body, action }) {
  return new Promise((resolve) => {
    const dialog = h(
      "dialog",
      { "aria-labelledby": "dialog-title", onclose: () => { resolve(dialog.returnValue === "yes"); dialog.remove(); } },
      h("h2", { id: "dialog-title" }, title),
      body.map((part) => h("p", {}, part)),
      h("div", { class: "actions" },
        h("button", { type: "button", autofocus: true, onclick: () => dialog.close("no") }, "Cancel"),
        h("button", { type: "button", class: "danger", onclick: () => dialog.close("yes") }, action)),
    );
    document.body.append(dialog);
    dialog.showModal();
  });
}

/** Shows the answers behind a view: `{path, answer, body}`, where `body` is that of a POST. */
export function showJson(answers) {
  const dialog = h(
    "dialog",
    { class: "wide", "aria-labelledby": "dialog-title", onclose: () => dialog.remove() },
    h("div", { class: "row spread" },
      h("h2", { id: "dialog-title" }, "JSON"),
      h("button", { type: "button", autofocus: true, onclick: () => dialog.close() }, "Close")),
    answers.length ? null : h("p", { class: "soft" }, "This view has asked for nothing yet."),
    answers.map(({ path, answer, body, method = body ? "POST" : "GET" }) => [
      h("h3", {}, h("code", {}, `${method} /console/api/${path}`)),
      h("div", { class: "row" }, copyButton("Copy the JSON", pretty(answer)), copyButton("Copy as curl", curl(method, path, body))),
      h("pre", { class: "json", tabindex: 0, role: "group", "aria-label": `Answer of ${path}` }, pretty(answer)),
    ]),
  );
  document.body.append(dialog);
  dialog.showModal();
}

/** A button that copies a text, and says so. */
export function copyButton(label, text) {
  const button = h("button", {
    type: "button",
    class: "small",
    onclick: async () => {
      try {
        await navigator.clipboard.writeText(text);
        button.textContent = "Copied";
      } catch {
        button.textContent = "Could not copy"; // no permission, or no secure context
      }
      setTimeout(() => { button.textContent = label; }, 1500);
    },
  }, label);
  return button;
}
