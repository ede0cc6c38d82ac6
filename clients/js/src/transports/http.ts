import type { ErrorClass, PushError } from "../errors.js";
import type { Reply, ServerMessage } from "../types.js";
import { type Link, places, type Target } from "./link.js";

/** Milliseconds between two acknowledgements: they count as requests, of which few are allowed. */
const ACK_PAUSE = 250;
/** Milliseconds in which a request other than one that listens is answered. */
const ANSWER = 30_000;

/** How to speak with a node over HTTP. */
export type Http = ReturnType<typeof http>;

export function http(PushError: ErrorClass) {
  /** Makes a request with the token. */
  function get(target: Target, path: string, init: RequestInit = {}): Promise<Response> {
    const headers: Record<string, string> = { Authorization: `Bearer ${target.token}` };
    if (init.body) headers["Content-Type"] = "application/json";
    const { fetch = globalThis.fetch } = target;
    return fetch(target.url + path, { ...init, cache: "no-store", headers });
  }

  /** The query with which to listen. */
  function query(target: Target, after = places(target.topics)): string {
    const parameters = new URLSearchParams({ device: target.device });
    for (const topic of target.topics.keys()) parameters.append("topic", topic);
    if (after) parameters.append("after", after);
    return `?${parameters}`;
  }

  /** The error that an answer is. */
  async function refusal(answer: Response): Promise<PushError> {
    const seconds = Number(answer.headers.get("Retry-After")) || undefined;
    const { status } = answer;
    const { type = status, detail, retry_after } = await answer.json().catch(() => ({}));
    return new PushError(
      String(type).replace(/.*:/, ""),
      detail ?? `answered with ${status}`,
      status,
      retry_after ?? seconds,
    );
  }

  /** One poll; `after` is where the one before ended. */
  async function poll(
    target: Target,
    after?: string,
    wait = 0,
    signal?: AbortSignal,
  ): Promise<{ messages: ServerMessage[]; position: string }> {
    const path = `/v1/poll${query(target, after)}&wait=${wait}`;
    const answer = await get(target, path, signal && { signal });
    if (!answer.ok) throw await refusal(answer);
    return answer.json();
  }

  /** The end of a connection, from whatever ended it. */
  function lost(error: unknown): PushError {
    return error instanceof PushError ? error : new PushError("lost", String(error));
  }

  async function ask(target: Target, path: string, body?: unknown): Promise<Reply> {
    const abort = new AbortController();
    const timer = setTimeout(() => abort.abort(), ANSWER);
    const post = body ? { method: "POST", body: JSON.stringify(body) } : {};
    try {
      const answer = await get(target, path, { ...post, signal: abort.signal });
      if (!answer.ok) throw await refusal(answer);
      return await answer.json();
    } catch (error) {
      if (error instanceof PushError) throw error;
      throw new PushError("unknown", "no answer came: it may or may not have been done");
    } finally {
      clearTimeout(timer);
    }
  }

  /** What a stream and a poll send, by requests of their own. */
  function requests(target: Target): Link {
    const due = new Map<boolean, string>();
    let timer: ReturnType<typeof setTimeout> | undefined;
    let last = 0;
    let closed = false;
    const acknowledge = async () => {
      last = Date.now();
      let pause = ACK_PAUSE;
      for (const [broadcast, id] of [...due]) {
        due.delete(broadcast);
        try {
          await ask(target, "/v1/ack", { device: target.device, id, broadcast });
        } catch {
          // Tried again, unless a later one says it too.
          if (!due.has(broadcast)) due.set(broadcast, id);
          pause = 4 * ACK_PAUSE;
        }
      }
      timer = due.size && !closed ? setTimeout(acknowledge, pause) : undefined;
    };
    return {
      request({ type, topic, ...fields }: ServerMessage) {
        if (type === "publish") {
          return ask(target, "/v1/notifications", { to: { topic }, ...fields });
        }
        return ask(target, `/v1/topics/${encodeURIComponent(topic as string)}/presence`);
      },
      ack({ id, broadcast }) {
        due.set(!!broadcast, id as string);
        timer ??= setTimeout(acknowledge, Math.max(0, last + ACK_PAUSE - Date.now()));
      },
      close() {
        closed = true;
        clearTimeout(timer);
        acknowledge();
      },
    };
  }

  return { get, query, refusal, poll, lost, requests };
}
