// One notification from accepted to acked.

import { confirm } from "../dialogs.js";
import { ofUser } from "../api.js";
import { bdi, h, replace } from "../dom.js";
import { duration, pretty, stamp } from "../format.js";
import { icon } from "../icons.js";
import { idTime } from "../ids.js";
import { badge, field, json, Page, problemNotice, table, when } from "../parts.js";
import { repeat } from "../repeat.js";
import { traceHref, userHref } from "../router.js";
import { feedWords, statusOf, summary, timeline, verdict } from "../timeline.js";

const PERIOD = 2000;
const SETTLED = new Set(["expired", "gone", "unknown"]);
const TONES = { accepted: "ok", routed: "ok", sent: "ok", acked: "ok", closed: "warn", withdrawn: "warn", expired: "bad", trimmed: "bad" };

/** The view `#/trace`; `user`, `topic` or `broadcast` says where to look. */
export function traceView(app, { id = "", user, topic, broadcast }) {
  const page = new Page("Trace", "Where is my notification? Its way from accepted to acknowledged.");
  const feed = user ? { user } : topic ? { topic } : broadcast ? { broadcast: "true" } : {};
  const result = h("div", { class: "stack" });
  const asked = form(id, feed);
  page.body.append(asked.element, result);
  if (!id) return page;
  if (idTime(id) === null) {
    asked.ids.fail(`${id} is no id: one looks like 1764000000123-0.`);
    return page;
  }
  let shown = ""; // what is drawn already: a reader is not disturbed when nothing changed
  let stop = () => {};
  const path = `trace?${new URLSearchParams({ id, ...feed })}`;
  const refresh = async () => {
    try {
      const trace = await app.api.get(path, { signal: page.signal });
      page.saw(path, trace);
      const now = pretty(trace);
      if (now !== shown) replace(result, told(app, trace, refresh));
      shown = now;
      result.querySelector(".told").textContent = summary(trace, Date.now()).join(" ");
      if (SETTLED.has(trace.status)) stop();
    } catch (problem) {
      if (page.signal.aborted) return;
      shown = "";
      if (problem.status === 400) {
        (problem.code === "invalid_name" ? asked.name : asked.ids).fail(problem.message);
        replace(result);
      } else replace(result, problemNotice(problem));
      if (problem.status >= 400 && problem.status < 500 && problem.status !== 429) stop();
    }
  };
  stop = repeat(refresh, { period: PERIOD });
  page.until(() => stop());
  return page;
}

const PLACES = { "": "Wherever it is", user: "A user's mailbox", topic: "A topic", broadcast: "The broadcast" };

function form(id, feed) {
  const [kind = "", of = ""] = Object.entries(feed)[0] ?? [];
  const ids = field("Id", h("input", { id: "trace-id", value: id, autocomplete: "off", spellcheck: "false", placeholder: "1764000000123-0" }));
  const place = field("Look in", h("select", { id: "trace-place", onchange: () => change() },
    Object.entries(PLACES).map(([value, label]) => h("option", { value, selected: value === kind }, label))));
  const name = field("Name", h("input", { id: "trace-name", value: kind === "broadcast" ? "" : of, autocomplete: "off", spellcheck: "false", maxlength: 256 }));
  const named = () => ["user", "topic"].includes(place.input.value);
  const change = () => { name.element.hidden = !named(); };
  change();
  const element = h("form", {
    class: "panel inline",
    novalidate: true,
    onsubmit: (event) => {
      event.preventDefault();
      const [value, who] = [ids.input.value.trim(), name.input.value];
      if (!ids.fail(idTime(value) === null ? "Give an id, such as 1764000000123-0." : null)) return ids.input.focus();
      if (!name.fail(named() && !who ? `Name the ${place.input.value}.` : null)) return name.input.focus();
      location.hash = traceHref(value, named() ? { [place.input.value]: who } : place.input.value ? { broadcast: "true" } : {});
    },
  }, ids.element, place.element, name.element, h("button", { class: "primary" }, "Trace"));
  return { element, ids, name };
}

function told(app, trace, refresh) {
  const { tone, words } = verdict(trace);
  const feed = feedWords(trace.feed);
  return [
    h("section", { class: "panel summary", "aria-labelledby": "summary" },
      h("div", { class: "row spread" },
        h("h2", { id: "summary" }, h("code", {}, trace.id)),
        badge(tone, words)),
      h("p", { class: "told" }),
      h("p", { class: "soft" }, feed ? `To ${feed}. ` : null,
        trace.feed?.user ? h("a", { href: userHref(trace.feed.user), "data-key": "user" }, "Open the user's page") : null),
      trace.also?.length ? h("p", { class: "soft" }, "Something else has this id too: ",
        trace.also.map((other) => [h("a", { href: traceHref(trace.id, other) }, feedWords(other)), " "])) : null,
      recallButton(app, trace, refresh)),
    h("section", { class: "stack", "aria-labelledby": "steps" }, h("h2", { id: "steps" }, "Timeline"),
      trace.steps.length ? h("ol", { class: "timeline" }, timeline(trace).map(step)) : h("p", { class: "soft" }, "No step is known.")),
    trace.devices.length ? h("section", { class: "stack", "aria-labelledby": "by-device" }, h("h2", { id: "by-device" }, "Devices"),
      table("Devices", ["Device", "Status", "When", "Why"], trace.devices.map((each) => h("tr", {},
        h("th", { scope: "row" }, bdi(each.device)),
        h("td", {}, badge(statusOf(each.status).tone, statusOf(each.status).words)),
        h("td", {}, each.time ? when(each.time) : "–"),
        h("td", {}, each.why ?? "–"))), { unseen: true })) : null,
    trace.notification ? h("section", { class: "stack", "aria-labelledby": "content" }, h("h2", { id: "content" }, "Notification"),
      json(trace.notification, "The notification")) : null,
  ];
}

function step({ what, at, since, after, node, device, connection, by, attempt, note }) {
  const facts = [
    device && ["device ", bdi(device)], attempt > 1 && [`attempt ${attempt}`], by && ["by ", bdi(by)],
    node && ["node ", h("code", {}, node)], connection && ["connection ", h("code", {}, connection)], note,
  ].filter(Boolean);
  return h("li", {},
    icon(TONES[what] ?? "idle"),
    h("div", {},
      h("div", { class: "row" }, h("b", {}, what),
        h("span", { class: "since" }, since ? `+${duration(Math.max(since, 0))}` : null),
        after && after !== since ? h("span", { class: "soft" }, `${duration(after)} after the last`) : null),
      h("div", { class: "soft" }, h("time", { datetime: new Date(at).toISOString() }, stamp(at)), facts.map((fact) => [" · ", fact]))));
}

function recallButton(app, trace, refresh) {
  const user = trace.feed?.user;
  if (!user || !trace.notification || !["sent", "waiting"].includes(trace.status)) return null;
  const said = h("div");
  const recall = async () => {
    const sure = await confirm({ title: "Recall this notification?", body: [`${trace.id} is withdrawn from every device that has not acknowledged it.`], action: "Recall" });
    if (!sure) return;
    try {
      await app.api.delete(ofUser(user, `/notifications/${trace.id}`));
      await refresh();
    } catch (problem) {
      said.replaceChildren(problemNotice(problem));
    }
  };
  const button = h("button", { type: "button", class: "small", "data-key": "recall", disabled: !app.me.may.recall, onclick: recall }, "Recall…");
  return h("div", {}, h("div", { class: "row" }, button, app.me.may.recall ? null : h("span", { class: "soft" }, "Recalling needs a token with push.admin.")), said);
}
