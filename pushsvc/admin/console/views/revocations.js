// Tokens that are good no longer.

import { confirm } from "../dialogs.js";
import { bdi, h, replace } from "../dom.js";
import { isolated, stamp, visible } from "../format.js";
import { choice, field, guarded, notice, Page, problemNotice, table, when } from "../parts.js";
import { repeat } from "../repeat.js";
import { revocationOf } from "../requests.js";
import { userHref } from "../router.js";

const PERIOD = 5000;
const DAYS = [1, 7, 30, 90, 365];
const CONSEQUENCES = {
  user: "Closes all sockets of the user within a second, on every node, and refuses the tokens that it has now. A token issued later is good. The mailbox stays.",
  jti: "Refuses this one token, and closes the sockets that were opened with it. Other tokens of the same user stay good.",
  all: "Refuses every token issued up to that time, of users, backends and operators, yours too, and closes their sockets. For a leaked signing key, change the key as well.",
};

/** The view `#/revocations`. */
export function revocationsView(app) {
  const page = new Page("Revocations", "Tokens that are refused before they expire.");
  const told = h("div");
  const list = h("div");
  const now = stamp(Date.now()).slice(0, 16).replace(" ", "T");
  const text = { autocomplete: "off", spellcheck: "false" };
  const fields = {
    user: field("User id", h("input", { id: "revoke-user", maxlength: 256, ...text })),
    jti: field("Token id (jti)", h("input", { id: "revoke-jti", maxlength: 256, ...text })),
    before: field("Issued up to (UTC)", h("input", { id: "revoke-before", type: "datetime-local", value: now, max: now })),
  };
  const days = field("Keep the revocation for", h("select", { id: "revoke-days" },
    DAYS.map((each) => h("option", { value: each, selected: each === 30 }, each === 1 ? "1 day" : `${each} days`))),
    "Longer than the tokens live: afterwards they are good again.");
  const consequences = h("p", { class: "consequences" });
  const what = () => form.elements.what.value;
  const change = () => {
    fields.user.element.hidden = what() !== "user";
    fields.jti.element.hidden = what() !== "jti";
    fields.before.element.hidden = what() !== "all";
    consequences.textContent = CONSEQUENCES[what()];
  };
  const form = h("form", { class: "panel stack", novalidate: true, onsubmit: (event) => { event.preventDefault(); revoke(); } },
    h("h2", { id: "revoke" }, "Revoke"),
    choice("what", "What", [["user", "A user's tokens"], ["jti", "One token"], ["all", "All before a time"]], change),
    h("div", { class: "pair" }, Object.values(fields).map((each) => each.element), days.element),
    consequences,
    h("div", { class: "actions" }, guarded(h("button", { class: "danger" }, "Revoke…"), app.me.may.revoke ? null : "Revoking needs a token with push.admin.")));
  change();

  async function revoke() {
    if (!app.me.may.revoke) return;
    const { body, errors = {} } = revocationOf({
      what: what(), days: days.input.value,
      ...Object.fromEntries(Object.entries(fields).map(([name, each]) => [name, name === "user" ? each.input.value : each.input.value.trim()])),
    });
    for (const [name, each] of Object.entries(fields)) each.fail(errors[name] ?? null);
    if (errors[Object.keys(errors)[0]]) return fields[Object.keys(errors)[0]].input.focus();
    const title = { user: `Revoke the tokens of ${isolated(body.user ?? "")}?`, jti: "Revoke this token?", all: "Revoke all tokens?" }[what()];
    if (!await confirm({ title, body: [CONSEQUENCES[what()]], action: "Revoke" })) return;
    try {
      const held = await app.api.post("revocations", body);
      told.replaceChildren(notice("ok", "Revoked: ", words(held), "."));
      await refresh();
    } catch (problem) {
      told.replaceChildren(problemNotice(problem));
    }
  }

  let shown = "";
  const refresh = async () => {
    try {
      const answer = page.saw("revocations", await app.api.get("revocations", { signal: page.signal }));
      if (JSON.stringify(answer) === shown) return;
      shown = JSON.stringify(answer);
      replace(list, listed(answer.revocations));
    } catch (problem) {
      if (page.signal.aborted) return;
      shown = "";
      replace(list, problemNotice(problem));
    }
  };
  page.body.append(told, form,
    h("section", { class: "stack", "aria-labelledby": "held" }, h("h2", { id: "held" }, "In force"), list));
  page.until(repeat(refresh, { period: PERIOD }));
  return page;
}

function words({ user, jti }) {
  if (jti) return ["the token ", h("code", {}, visible(jti))];
  return user ? ["the tokens of ", h("a", { href: userHref(user) }, bdi(user))] : "all tokens";
}

function listed(revocations) {
  if (!revocations.length) return h("p", { class: "soft" }, "Nothing is revoked.");
  return table("Revocations, newest first", ["What", "Issued up to", "Kept until"], revocations.map((each) => h("tr", {},
    h("th", { scope: "row" }, words(each)),
    h("td", {}, each.issued_before == null ? "–" : when(each.issued_before * 1000)),
    h("td", {}, when(each.expires_at * 1000)))), { unseen: true });
}
