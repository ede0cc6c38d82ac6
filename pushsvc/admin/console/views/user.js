// One user: the devices, what the mailbox keeps, and who acknowledged it.

import { ofUser } from "../api.js";
import { confirm } from "../dialogs.js";
import { bdi, h, replace } from "../dom.js";
import { count, duration, isolated, plural, pretty, visible } from "../format.js";
import { following, reaches } from "../ids.js";
import { badge, field, guarded, json, notice, Page, problemNotice, table, when } from "../parts.js";
import { repeat } from "../repeat.js";
import { traceHref, userHref } from "../router.js";

const PERIOD = 3000;
const LIMIT = 20;

/** The views `#/user` and `#/user/<id>`. */
export function userView(app, { user }) {
  return user ? oneUser(app, user) : anyUser();
}

function anyUser() {
  const page = new Page("Users", "Find a user to see its devices, its mailbox and who acknowledged what.");
  const id = field("User id", h("input", { id: "user-id", autocomplete: "off", spellcheck: "false", maxlength: 256 }),
    ["The id as in the user's tokens (sub).", h("span", { class: "by-key" }, " The key / leads to the search from anywhere.")]);
  page.body.append(h("form", {
    class: "panel narrow",
    novalidate: true,
    onsubmit: (event) => {
      event.preventDefault();
      const { value } = id.input;
      if (id.fail(value ? null : "Name a user.")) location.hash = userHref(value);
      else id.input.focus();
    },
  }, id.element, h("div", { class: "actions" }, h("button", { class: "primary" }, "Show"))));
  return page;
}

function oneUser(app, user) {
  const may = app.me.may;
  const path = ofUser(user);
  const listing = ofUser(user, "/notifications");
  const page = new Page(user, null);
  const told = h("div"); // how the last action went
  const trouble = h("div"); // why what is shown may be old
  const state = h("div", { class: "row spread" });
  const devices = h("div");
  const mailbox = h("div", { class: "stack" });
  const disconnect = guarded(
    h("button", { type: "button", class: "danger", onclick: () => cutOff() }, "Disconnect…"),
    may.disconnect ? null : "Disconnecting needs a token with push.admin.");
  const online = h("span");
  state.append(online, disconnect);
  page.body.append(
    told, trouble, state,
    h("section", { class: "stack", "aria-labelledby": "devices" }, h("h2", { id: "devices" }, "Devices"), devices),
    h("section", { class: "stack", "aria-labelledby": "mailbox" }, h("h2", { id: "mailbox", tabindex: -1 }, "Mailbox"), mailbox));

  // The `before` of each page up to the one that is shown. The first is held where it was when it was first shown:
  // a list that moves by itself puts the wrong button under the pointer.
  const pages = [null];
  let stop = () => {};
  let shown = ""; // what is drawn already: a reader is not disturbed when nothing changed
  const refresh = async () => {
    const before = pages.at(-1);
    try {
      const [about, list] = await Promise.all([
        app.api.get(path, { signal: page.signal }),
        app.api.get(listing, { query: { limit: LIMIT, before }, signal: page.signal }),
      ]);
      page.saw(path, about);
      page.saw(listing, list);
      trouble.replaceChildren();
      const now = pretty([about, list, before]);
      if (now === shown || before !== pages.at(-1)) return;
      shown = now;
      pages[0] ??= list.notifications.length ? following(list.notifications[0].id) : null;
      online.replaceChildren(about.online
        ? badge("ok", `Online with ${plural(about.devices.reduce((all, each) => all + each.connections.length, 0), "connection")}`)
        : badge("idle", known(about) ? "Offline" : "Nothing is known of this user"));
      replace(devices, devicesTable(about.devices));
      replace(mailbox, mailboxList(about.mailbox, list));
    } catch (problem) {
      if (page.signal.aborted) return;
      trouble.replaceChildren(problemNotice(problem));
      if (problem.status === 400) stop(); // no name of a user: it will not become one
    }
  };
  const turn = (to) => {
    to();
    refresh().then(() => page.body.querySelector("#mailbox").focus());
  };

  async function cutOff() {
    const sure = await confirm({
      title: `Disconnect ${isolated(user)}?`,
      body: [
        "Every token that this user has now is revoked: its sockets close with 4501 within a second, on every node, and the tokens are refused for 30 days.",
        "Nothing in the mailbox is lost. With a token issued later the user is back.",
      ],
      action: "Disconnect",
    });
    if (sure) await act(() => app.api.post(ofUser(user, "/disconnect")), () => `${isolated(user)} is disconnected, and its tokens issued until now are revoked.`);
  }

  async function recall(id) {
    const sure = await confirm({
      title: "Recall this notification?",
      body: [`${id} is withdrawn: who has not seen it never will, who may hold it unacknowledged is told so.`],
      action: "Recall",
    });
    if (!sure) return;
    await act(() => app.api.delete(ofUser(user, `/notifications/${id}`)), ({ acked }) =>
      `${id} is recalled. ${acked.length ? `Acknowledged before that by ${acked.map(isolated).join(", ")}.` : "No device had acknowledged it."}`);
  }

  async function act(work, words) {
    try {
      told.replaceChildren(notice("ok", words(await work())));
    } catch (problem) {
      told.replaceChildren(problemNotice(problem));
    }
    told.scrollIntoView({ block: "nearest" });
    await refresh();
  }

  function mailboxList(about, list) {
    return [
      h("p", { class: "soft" }, about.length ? `${plural(about.length, "notification")} kept, newest first.` : "Nothing is kept.",
        may.recall ? null : " Recalling needs a token with push.admin."),
      pages[0] && about.newest && reaches(about.newest, pages[0])
        ? h("div", {}, h("button", { type: "button", class: "small", "data-key": "newest", onclick: () => turn(() => pages.splice(0, pages.length, null)) }, "Show what came since"))
        : null,
      h("ul", { class: "cards" }, list.notifications.map((each) => card(user, each, may, recall))),
      pages.length > 1 || list.next ? h("nav", { class: "row", "aria-label": "Pages of the mailbox" },
        h("button", { type: "button", "data-key": "newer", disabled: pages.length === 1, onclick: () => turn(() => pages.pop()) }, "Newer"),
        h("button", { type: "button", "data-key": "older", disabled: !list.next, onclick: () => turn(() => pages.push(list.next)) }, "Older"),
        h("span", { class: "soft" }, `Page ${pages.length}`)) : null,
    ];
  }

  stop = repeat(refresh, { period: PERIOD });
  page.until(() => stop());
  return page;
}

/** Whether a device has connected, or anything is kept: an id that is misspelt has neither. */
const known = ({ online, devices, mailbox }) => online || devices.length > 0 || mailbox.length > 0;

function devicesTable(devices) {
  if (!devices.length) return h("p", { class: "soft" }, "No device of this user has connected yet.");
  return table("Devices", ["Device", "Connected", "Waiting", "Acknowledged up to"].map((head) =>
    h("th", { scope: "col", class: head === "Waiting" ? "number" : null }, head)), devices.map((each) => h("tr", {},
    h("th", { scope: "row" }, bdi(each.device)),
    h("td", {}, each.connections.length
      ? h("ul", { class: "plain" }, each.connections.map((one) => h("li", {},
        badge("ok", `${one.transport ?? "connected"}`), " on ", h("code", {}, one.node), " ", one.since ? when(one.since, { full: false }) : null)))
      : badge("idle", "offline")),
    h("td", { class: "number" }, count(each.waiting), each.more ? " or more" : null),
    h("td", {}, each.acked ? h("code", {}, each.acked) : h("span", { class: "soft" }, "nothing yet")))), { unseen: true });
}

function card(user, { id, time, expires, acked, data, event, ...rest }, may, recall) {
  return h("li", { class: "card" },
    h("div", { class: "about" },
      h("h3", {}, event ?? "notification"),
      h("div", {}, h("code", {}, id), " ", when(time, { full: false })),
      acked.length
        ? h("ul", { class: "plain", "aria-label": "Acknowledged by" }, acked.map((one) =>
          h("li", {}, badge("ok", ["acked by ", bdi(one.device)]), one.time ? [" ", h("span", { class: "soft" }, after(time, one.time))] : null)))
        : badge("idle", "not acked yet"),
      h("div", { class: "soft small" }, "expires ", expires ? when(expires, { full: false }) : "with the retention",
        Object.entries(rest).map(([name, value]) => [" · ", `${name} `, h("code", {}, visible(typeof value === "string" ? value : JSON.stringify(value)))])),
      h("div", { class: "row" },
        h("a", { class: "button small", href: traceHref(id, { user }), "data-key": `trace-${id}`, "aria-label": `Trace ${id}` }, "Trace"),
        h("button", { type: "button", class: "small", "data-key": `recall-${id}`, "aria-label": `Recall ${id}`, disabled: !may.recall, onclick: () => recall(id) }, "Recall…"))),
    json(data, `Data of ${id}`));
}

const after = (accepted, acked) => `after ${duration((Date.parse(acked) - Date.parse(accepted)) / 1000)}`;
