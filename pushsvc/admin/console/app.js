// The shell: signs in, polls the overview, and shows the view that the address names.

import { Api } from "./api.js";
import { announce, bdi, h } from "./dom.js";
import { isolated, stamp } from "./format.js";
import { History } from "./history.js";
import { tellTime } from "./parts.js";
import { repeat } from "./repeat.js";
import { parse, userHref } from "./router.js";
import * as session from "./session.js";
import { changeTheme, theme } from "./theme.js";
import { overviewView } from "./views/overview.js";
import { revocationsView } from "./views/revocations.js";
import { sendView } from "./views/send.js";
import { signInView } from "./views/signin.js";
import { traceView } from "./views/trace.js";
import { userView } from "./views/user.js";

const VIEWS = { overview: overviewView, user: userView, trace: traceView, send: sendView, revocations: revocationsView };
const PERIOD = 1000;
const OLD = 5000; // milliseconds without an answer after which the numbers are called stale

const $ = (id) => document.getElementById(id);

let page = null; // the view that is shown
let app = null; // what views are given; null when signed out
let stopPolling = () => {};

/** Shows a page in place of the one that is shown. */
function show(next, { focus = true } = {}) {
  page?.close();
  page = next;
  $("main").replaceChildren(page.element);
  document.title = `${isolated(page.title)} · pushsvc`;
  if (focus) {
    page.heading.focus({ preventScroll: true });
    scrollTo(0, 0);
  }
}

function route({ focus = true } = {}) {
  if (session.takeFromAddress()) signIn();
  else if (app) {
    const parameters = parse(location.hash);
    // What is told of whole nodes is not for everyone: the console begins with the users then.
    if (parameters.view === "overview" && !app.me.may.overview) parameters.view = "user";
    for (const link of $("nav").querySelectorAll("a")) {
      if (link.dataset.view === parameters.view) link.setAttribute("aria-current", "page");
      else link.removeAttribute("aria-current");
    }
    show(VIEWS[parameters.view](app, parameters), { focus });
    page.update?.(app.overview);
  }
}

/** Asks who the token is; its answer opens the console, a refusal the sign-in. */
async function signIn() {
  const api = new Api(session.token(), (problem) => signOut(problem.message));
  try {
    const me = await api.get("me");
    app = { api, me, history: new History(), overview: { answer: null, at: null, problem: null, stale: false } };
  } catch (problem) {
    if (problem.status !== 401) signOut(problem.message, { keep: problem.status === 0 || problem.status >= 500 });
    return;
  }
  chrome();
  route({ focus: page !== null });
  stopPolling();
  if (app.me.may.overview) stopPolling = repeat(() => poll(app), { period: PERIOD });
}

/** Forgets the token, and says why. `keep` where the token is not to blame. */
function signOut(why = null, { keep = false } = {}) {
  stopPolling();
  if (!keep) session.forget();
  app = null;
  chrome();
  show(signInView({ why, kept: keep, signIn(token) { session.keep(token); return signIn(); }, retry: signIn }), { focus: why !== null });
}

async function poll(asked) {
  const { overview, history, api } = asked;
  try {
    overview.answer = await api.get("overview");
    overview.at = Date.now();
    overview.problem = null;
    history.add(overview.answer, overview.at / 1000);
  } catch (problem) {
    overview.problem = problem;
    history.miss(Date.now() / 1000);
  }
  overview.stale = overview.problem !== null && Date.now() - (overview.at ?? 0) > OLD;
  if (asked === app) page?.update?.(overview);
}

/** The parts of the page around the view. */
function chrome() {
  $("nav").hidden = $("search").hidden = !app;
  $("session").hidden = !app;
  if (!app) return;
  const { user, namespace, scopes, may, expires_at: expires } = app.me;
  $("nav").querySelector('[data-view="overview"]').hidden = !may.overview;
  $("session").replaceChildren(
    h("span", {}, "Signed in as ", h("b", {}, bdi(user)), namespace && ` in the namespace ${namespace}`, ` with ${scopes.join(", ") || "no scope"}`),
    h("span", {}, "the token expires ", h("time", { datetime: new Date(expires * 1000).toISOString(), title: `${stamp(expires * 1000)} UTC`, "data-ago": expires * 1000 })),
    h("button", { type: "button", class: "plain", onclick: () => { signOut(); announce("Signed out."); } }, "Sign out"),
  );
  tellTime();
}

function tellTheme() {
  const words = { system: "as the system", light: "light", dark: "dark" }[theme()];
  $("theme").textContent = `Theme: ${words}`;
}

$("theme").addEventListener("click", () => { changeTheme(); tellTheme(); });
$("skip").addEventListener("click", () => (page?.heading ?? $("main")).focus());
$("search").addEventListener("submit", (event) => {
  event.preventDefault();
  const user = $("search-user").value;
  if (!user) return;
  if (location.hash === userHref(user)) route();
  else location.hash = userHref(user);
  $("search-user").value = "";
});
addEventListener("keydown", (event) => {
  const writing = event.target.closest?.("input, textarea, select, dialog");
  if (event.key === "/" && app && !writing && !event.ctrlKey && !event.metaKey && !event.altKey) {
    event.preventDefault();
    $("search-user").focus();
  }
});
addEventListener("hashchange", () => route());
setInterval(tellTime, 1000);

tellTheme();
if (session.takeFromAddress() || session.token()) signIn();
else signOut();
