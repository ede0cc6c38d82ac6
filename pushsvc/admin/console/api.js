// Requests to the console's JSON.

const BASE = new URL("../api/", import.meta.url);
const TIMEOUT = 5000;

/** An answer of 400 and above, or none at all (`status` 0). */
export class Problem extends Error {
  /** @param {{status: number, type?: string, title?: string, detail?: string, retry_after?: number}} told */
  constructor({ status, type, title, detail, retry_after: retryAfter }) {
    super(detail || title || `the node answered ${status}`);
    this.status = status;
    this.code = type?.split(/[:/]/).at(-1); // as PROTOCOL.md lists them
    this.retryAfter = retryAfter;
  }
}

/** The JSON API with one token. */
export class Api {
  #token;
  #refused;

  /**
   * @param {string} token
   * @param {(problem: Problem) => void} refused is told of each 401: the token is no longer good
   */
  constructor(token, refused) {
    this.#token = token;
    this.#refused = refused;
  }

  /** GET; `query` values that are empty are left out. */
  get(path, { query = {}, signal } = {}) {
    const url = new URL(path, BASE);
    for (const [name, value] of Object.entries(query)) if (value) url.searchParams.set(name, value);
    return this.#send("GET", url, undefined, signal);
  }

  /** POST of a JSON body. */
  post(path, body, { signal } = {}) {
    return this.#send("POST", new URL(path, BASE), body, signal);
  }

  /** DELETE. */
  delete(path, { signal } = {}) {
    return this.#send("DELETE", new URL(path, BASE), undefined, signal);
  }

  async #send(method, url, body, signal) {
    const timeout = AbortSignal.timeout(TIMEOUT);
    const headers = { Authorization: `Bearer ${this.#token}` };
    if (body !== undefined) headers["Content-Type"] = "application/json";
    let response;
    let answer = null;
    try {
      response = await fetch(url, {
        method,
        headers,
        body: body === undefined ? undefined : JSON.stringify(body),
        signal: signal ? AbortSignal.any([signal, timeout]) : timeout,
        cache: "no-store",
        credentials: "omit",
      });
      const text = await response.text();
      if (text) answer = read(text);
    } catch (error) {
      if (signal?.aborted) throw error; // whoever asked has gone
      throw new Problem({ status: 0, detail: "The node does not answer." });
    }
    if (response.ok) return answer;
    const problem = new Problem({ ...answer, status: response.status });
    if (problem.status === 401) this.#refused(problem);
    throw problem;
  }
}

function read(text) {
  try {
    return JSON.parse(text);
  } catch {
    return { detail: text.slice(0, 300) };
  }
}

/** The path of what is asked about a user. In the query, as a proxy or the browser may change a path. */
export function ofUser(user, rest = "", more = {}) {
  return `user${rest}?${new URLSearchParams({ user, ...more })}`;
}

/** The same request for a terminal. */
export function curl(method, path, body) {
  const parts = [`curl ${body === undefined ? "" : `-X ${method} `}'${new URL(path, BASE)}'`, `-H "Authorization: Bearer $TOKEN"`];
  if (body !== undefined) {
    parts.push("-H 'Content-Type: application/json'", `-d '${JSON.stringify(body).replaceAll("'", "'\\''")}'`);
  }
  return parts.join(" \\\n  ");
}
