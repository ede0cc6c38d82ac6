// What the pages of the demo share: tokens, a client for a user, and a backend that publishes.
//
// In production your own backend makes the tokens, and holds those that publish; here `pushsvc dev` does, for whoever asks.
import { connect } from "/client.js";

/** Where the node is. */
export const node = (await get("/dev/node")).url;

// The line that runs the example in Python, which has to be told of a node at other addresses than the usual ones.
const python = document.querySelector("#python");
if (python) python.textContent = inTerminal(node, location.origin, python.textContent);

function inTerminal(url, adminUrl, command) {
  const usual = (address, port) => [`http://127.0.0.1:${port}`, `http://localhost:${port}`].includes(address);
  const variables = [];
  if (!usual(url, 8080)) variables.push(`PUSH_URL=${url}`);
  if (!usual(adminUrl, 9090)) variables.push(`PUSH_ADMIN_URL=${adminUrl}`);
  return [...variables, command].join(" ");
}

/** The processes behind it: `[{node, pid, ready}]`. */
export const nodes = async () => (await get("/dev/node")).nodes;

async function get(path) {
  return (await fetch(path)).json();
}

export async function post(path, body) {
  const answer = await fetch(path, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(body),
  });
  if (!answer.ok) throw new Error((await answer.json()).detail);
  return answer.json();
}

/** A token for a user: for the topics of a pattern, or with scopes. */
export async function token(user, { pattern, scopes = [] } = {}) {
  const topics = pattern && { subscribe: [pattern], publish: [pattern] };
  return (await post("/dev/token", { user, scopes, ...(topics && { topics }) })).token;
}

/**
 * A connection of a user, which comes back by itself.
 *
 * A page of your own needs the first two options only. Here one page plays several users and
 * devices, each with a connection of its own; and it does not wait long, as its node dies often.
 */
export function client(user, pattern, options = {}) {
  return connect({
    url: node,
    token: () => token(user, { pattern }),
    device: device(),
    share: false,
    timing: { first: 300, max: 1000 },
    ...options,
  });
}

/** The name of this tab's device: a reload goes on where it was. */
function device() {
  sessionStorage.device ??= `tab-${Math.random().toString(36).slice(2, 8)}`;
  return sessionStorage.device;
}

/** A backend: it publishes over HTTP, one after the other, and retries until that has worked. */
export class Backend {
  #token;
  #last = Promise.resolve();

  constructor(name = "backend") {
    this.#token = token(name, { scopes: ["push.publish"] });
  }

  /** Publish a notification; resolves to `{id, attempts, …}` once a node has accepted it. */
  publish(note) {
    const answer = this.#last.then(() => this.#send(note));
    this.#last = answer.catch(() => {});
    return answer;
  }

  async #send(note) {
    // One key for all attempts: however often it is sent, it is one notification.
    const key = crypto.randomUUID();
    for (let attempts = 1; ; attempts += 1) {
      const answer = await this.ask("/v1/notifications", note, { "Idempotency-Key": `"${key}"` });
      if (answer?.ok) return { ...(await answer.json()), attempts };
      if (answer && answer.status < 500 && answer.status !== 429) {
        throw new Error((await answer.json()).detail);
      }
      await pause(200);
    }
  }

  /** A request to the node: GET, or POST with a body; null where it cannot be reached. */
  async ask(path, body, headers = {}) {
    return fetch(node + path, {
      method: body ? "POST" : "GET",
      headers: {
        Authorization: `Bearer ${await this.#token}`,
        ...(body && { "Content-Type": "application/json" }),
        ...headers,
      },
      body: body && JSON.stringify(body),
    }).catch(() => null);
  }

  /** The line that does the same in a terminal. */
  async curl(note) {
    const body = JSON.stringify(note).replaceAll("'", "'\\''");
    return `curl ${node}/v1/notifications \\
  -H 'Authorization: Bearer ${await this.#token}' \\
  -H 'Content-Type: application/json' \\
  -d '${body}'`;
  }
}

export const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

/** An element: `el("p", { className: "note" }, "text", another)`. */
export function el(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

export const $ = (selector, inside = document) => inside.querySelector(selector);

/** A user's name as one writes it; its letters cannot reorder what stands around them. */
export const title = (user) => {
  const [first, ...rest] = user.replace(/[\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]/g, "�");
  const name = first.toUpperCase() + rest.join("");
  return /^[\x20-\x7e]*$/.test(name) ? name : `\u2068${name}\u2069`;
};

/** Who is here, as a user sees it. */
export const here = (users, self) => {
  const names = [...users].sort().map((user) => (user === self ? `${title(user)} (you)` : title(user)));
  return `Here: ${names.join(", ") || "nobody"}`;
};

const WORDS = {
  connecting: "connecting…",
  waiting: "reconnecting…",
  closed: "offline",
};

/** Show the state of a connection in an element, from now on. */
export function showState(push, element) {
  const show = (state) => {
    element.dataset.status = state.status;
    element.textContent = WORDS[state.status] ?? "connected";
    element.title = state.transport ?? "";
  };
  show(push.state);
  push.on("state", show);
}
