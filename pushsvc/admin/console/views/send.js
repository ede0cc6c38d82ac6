// A test notification.

import { confirm } from "../dialogs.js";
import { h } from "../dom.js";
import { plural } from "../format.js";
import { choice, field, guarded, notice, Page, problemNotice } from "../parts.js";
import { notificationOf } from "../requests.js";
import { traceHref } from "../router.js";

/** The view `#/send`. */
export function sendView(app) {
  const page = new Page("Send", "A test notification, published as a backend would.");
  const result = h("div", { class: "stack" });
  const fields = {
    name: field("User id", h("input", { id: "send-name", autocomplete: "off", spellcheck: "false", maxlength: 256 })),
    event: field("Event (optional)", h("input", { id: "send-event", autocomplete: "off", spellcheck: "false", maxlength: 128, placeholder: "order.shipped" })),
    ttl: field("Time to live (optional)", h("input", { id: "send-ttl", inputmode: "numeric", autocomplete: "off" }), "Seconds; 0 is live only: it is not kept."),
    data: field("Data", h("textarea", { id: "send-data", rows: 6, spellcheck: "false" }, '{\n  "text": "hello"\n}'), "Any JSON."),
  };
  const to = () => form.elements.to.value;
  const retarget = () => {
    fields.name.element.hidden = to() === "broadcast";
    fields.name.element.querySelector("label").textContent = to() === "topic" ? "Topic" : "User id";
  };
  const read = () => notificationOf({
    to: to(), name: fields.name.input.value, data: fields.data.input.value,
    ...Object.fromEntries(["event", "ttl"].map((each) => [each, fields[each].input.value.trim()])),
  });
  const button = h("button", { class: "primary" }, "Send");
  const form = h("form", { class: "panel stack", novalidate: true, onsubmit: (event) => { event.preventDefault(); send(); } },
    choice("to", "To", [["user", "A user"], ["topic", "A topic"], ["broadcast", "Everyone (broadcast)"]], retarget),
    fields.name.element,
    h("div", { class: "pair" }, fields.event.element, fields.ttl.element),
    fields.data.element,
    h("div", { class: "actions" }, guarded(button, app.me.may.publish ? null : "Sending needs a token with the scope push.publish as well.")));
  fields.data.input.addEventListener("input", () => fields.data.fail(read().errors?.data ?? null));
  page.body.append(form, result);

  async function send() {
    if (!app.me.may.publish) return;
    const { body, errors = {} } = read();
    for (const [name, each] of Object.entries(fields)) each.fail(errors[name] ?? null);
    const wrong = Object.keys(fields).find((name) => errors[name]);
    if (wrong) return fields[wrong].input.focus();
    if (body.to.broadcast && !await confirm({
      title: "Send to everyone?", body: ["Every user who is connected gets this, and every known device when it returns."], action: "Send to everyone",
    })) return;
    button.disabled = true;
    try {
      result.replaceChildren(sent(body, page.saw("notifications", await app.api.post("notifications", body, { signal: page.signal }), body)));
    } catch (problem) {
      if (!page.signal.aborted) result.replaceChildren(problemNotice(problem));
    }
    button.disabled = false;
  }
  return page;
}

function sent(body, { id, durability, connections }) {
  return notice("ok",
    h("p", {}, "Accepted", id ? [" as ", h("code", {}, id)] : null, `, routed to ${plural(connections, "connection")}, durability ${durability}.`),
    id && durability !== "none" ? h("p", {}, h("a", { href: traceHref(id, body.to) }, "Trace it")) : null);
}
