// Signing in: a token is all it takes.

import { h } from "../dom.js";
import { field, notice, Page } from "../parts.js";

const COMMAND = "pushsvc token --user admin --scope push.admin --scope push.publish";

/**
 * @param {{why: string | null, kept: boolean, signIn: (token: string) => Promise<void>, retry: () => void}} options
 *   `why` the last token does not do; `kept`, where it may do yet
 */
export function signInView({ why, kept, signIn, retry }) {
  const page = new Page("Sign in", null);
  const token = field("Token", h("input", { id: "token", type: "password", autocomplete: "off", spellcheck: "false", required: true }),
    "Paste a token with the scope push.admin; with push.observe you see everything and change nothing.");
  const button = h("button", { type: "submit", class: "primary" }, "Sign in");
  const form = h("form", {
    class: "panel narrow",
    novalidate: true,
    onsubmit: async (event) => {
      event.preventDefault();
      const value = token.input.value.trim();
      if (!token.fail(value ? null : "Paste a token first.")) return token.input.focus();
      button.disabled = true;
      await signIn(value);
      button.disabled = false;
    },
  }, token.element, h("div", { class: "actions" }, button),
  h("p", { class: "hint" }, "It stays in this tab and is sent to this node only. ", h("code", {}, "pushsvc dev"), " prints an address that signs in by itself. Elsewhere, where PUSHSVC_JWT_SECRET is set as for the node, this makes a token, with the scope for sending too:"),
  h("pre", {}, COMMAND));
  if (why) page.body.append(notice(kept ? "warn" : "bad", why, kept ? h("p", {}, h("button", { type: "button", onclick: retry }, "Try again")) : null));
  page.body.append(form);
  page.element.classList.add("sign-in");
  page.element.querySelector(".head > .row").remove(); // nothing was asked for yet
  return page;
}
