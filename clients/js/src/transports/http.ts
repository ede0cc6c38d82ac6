import { sleep } from "../backoff.js";
import type { ErrorClass, PushError } from "../errors.js";
import type { Reply, ServerMessage } from "../types.js";
import { type Link, type LinkEvents, places, type Target } from "./link.js";

/** Milliseconds between two acknowledgements: they count as requests, of which few are allowed. */
const ACK_PAUSE = 250;

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

  /** Tells which of these topics are refused; rejects if it is not for topics. */
  async function search(target: Target, on: LinkEvents, names: string[]): Promise<void> {
    const topics = new Map(names.map((name) => [name, target.topics.get(name)]));
    try {
      await poll({ ...target, topics });
    } catch (e) {
      const error = e as PushError;
      const [first] = names;
      if (error.status === 429) {
        await sleep((error.retryAfter ?? 1) * 1000);
        return search(target, on, names);
      }
      if (first === undefined || !mayBeForTopics(error)) throw error;
      if (names.length === 1) return on.refused(first, error);
      // One question at a time keeps within the rates of the server.
      const half = names.length >> 1;
      await search(target, on, names.slice(0, half));
      await search(target, on, names.slice(half));
    }
  }

  /** Tells the end of what listened, after the topics that were the reason, if any were. */
  async function ended(target: Target, on: LinkEvents, error: unknown): Promise<void> {
    let end = error;
    if (target.topics.size && mayBeForTopics(error as PushError)) {
      try {
        await search(target, on, []);
        await search(target, on, [...target.topics.keys()]);
        // Without its status, which would be the end of the client.
        end = new PushError((error as PushError).code, (error as PushError).message);
      } catch (other) {
        end = other;
      }
    }
    on.end(end instanceof PushError ? end : new PushError("lost", String(end)));
  }

  async function ask(target: Target, path: string, body?: unknown): Promise<Reply> {
    const abort = new AbortController();
    const timer = setTimeout(() => abort.abort(), target.timing.answer);
    const post = body ? { method: "POST", body: JSON.stringify(body) } : {};
    try {
      const answer = await get(target, path, { ...post, signal: abort.signal });
      if (!answer.ok) throw await refusal(answer);
      return await answer.json();
    } catch (error) {
      if (error instanceof PushError) throw error;
      throw new PushError("unknown", "no answer came: it may have been done");
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
      most: 1,
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

  return { get, query, refusal, poll, ended, requests };
}

/** Whether topics may be the reason of a refusal. */
function mayBeForTopics({ status = 0 }: PushError): boolean {
  return [400, 403].includes(status);
}
