import type { ErrorClass, PushError } from "../errors.js";
import type { Settings } from "../settings.js";
import type { Tokens } from "../tokens.js";
import type { HistoryQuery, Reply, ServerMessage } from "../types.js";
import { type Link, type LinkEvents, places, type Target } from "./link.js";

/** Milliseconds between two acknowledgements: they count as requests, of which few are allowed. */
const ACK_PAUSE = 250;
/** Most requests for one page of the history. */
const MOST_TRIES = 5;

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
    const { status, headers } = answer;
    const { type = status, detail, retry_after } = await answer.json().catch(() => ({}));
    // Nothing, a date, or no time at all is no reason to ask at once.
    const seconds = Number(retry_after ?? headers.get("Retry-After"));
    return new PushError(
      String(type).replace(/.*:/, ""),
      detail ?? `${answer.url.replace(/\?.*/, "")} answered with ${status}`,
      status,
      seconds > 0 ? seconds : undefined,
    );
  }

  /** One poll; `after` is where the one before ended, `unread` what it counted. */
  async function poll(
    target: Target,
    after?: string,
    wait = 0,
    signal?: AbortSignal,
    unread?: number,
  ): Promise<{ messages: ServerMessage[]; position: string; unread?: number }> {
    const known = unread === undefined ? "" : `&unread=${unread}`;
    const path = `/v1/poll${query(target, after)}&wait=${wait}${known}`;
    const answer = await get(target, path, signal && { signal });
    if (!answer.ok) throw await refusal(answer);
    return answer.json();
  }

  /** Waits; rejects at the end of what asks, and after it. */
  async function pause(seconds: number, end: AbortSignal): Promise<void> {
    end.throwIfAborted();
    await new Promise<void>((resolve) => {
      const wake = () => {
        clearTimeout(timer);
        end.removeEventListener("abort", wake);
        resolve();
      };
      // A timer takes more than this for nothing.
      const timer = setTimeout(wake, Math.min(seconds * 1000, 2e9));
      end.addEventListener("abort", wake);
    });
    end.throwIfAborted();
  }

  /** Tells which of these topics are refused; rejects if it is not for topics. */
  async function search(
    target: Target,
    on: LinkEvents,
    names: string[],
    end: AbortSignal,
  ): Promise<void> {
    const topics = new Map(names.map((name) => [name, target.topics.get(name)]));
    try {
      await poll({ ...target, topics }, undefined, 0, end);
    } catch (e) {
      const error = e as PushError;
      const [first] = names;
      if (error.status === 429) {
        await pause(error.retryAfter ?? 1, end);
        return search(target, on, names, end);
      }
      if (first === undefined || !mayBeForTopics(error)) throw error;
      if (names.length === 1) return on.refused(first, error);
      // One question at a time keeps within the rates of the server.
      const half = names.length >> 1;
      await search(target, on, names.slice(0, half), end);
      await search(target, on, names.slice(half), end);
    }
  }

  /** Tells the end of what listened, after the topics that were the reason, if any were. */
  async function ended(
    target: Target,
    on: LinkEvents,
    error: unknown,
    { signal }: AbortController,
  ): Promise<void> {
    let end = error;
    if (target.topics.size && mayBeForTopics(error as PushError)) {
      try {
        await search(target, on, [], signal);
        await search(target, on, [...target.topics.keys()], signal);
        // Without its status, which would be the end of the client.
        end = new PushError((error as PushError).code, (error as PushError).message);
      } catch (other) {
        end = other;
      }
    }
    on.end(end instanceof PushError ? end : new PushError("lost", reasonOf(end)));
  }

  async function ask(
    target: Target,
    path: string,
    body?: unknown,
    end?: AbortSignal,
  ): Promise<Reply> {
    const abort = new AbortController();
    const stop = () => abort.abort();
    const timer = setTimeout(stop, target.timing.answer);
    end?.addEventListener("abort", stop);
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
      end?.removeEventListener("abort", stop);
    }
  }

  /**
   * A page of the user's mailbox: at the pace of the server, with a new token for a bad one.
   *
   * @param end of the client
   */
  async function history(
    settings: Settings,
    tokens: Tokens,
    query: HistoryQuery & { user: string | undefined; [more: string]: any },
    end: AbortSignal,
  ): Promise<Reply> {
    const given = Object.entries(query).filter(([, value]) => value != null);
    const path = `/v1/user/notifications?${new URLSearchParams(given)}`;
    let refused = false;
    for (let tries = 1; ; tries++) {
      const token = await tokens.get();
      end.throwIfAborted();
      try {
        return await ask({ ...settings, token, topics: new Map() }, path, undefined, end);
      } catch (e) {
        end.throwIfAborted();
        const { status, retryAfter } = e as PushError;
        if (tries >= MOST_TRIES) throw e;
        if (status === 401 && !refused && !tokens.fixed) tokens.doubt(token);
        else if (status !== 429) throw e;
        // Another token may be asked for at once.
        const unsaid = status === 429 ? (settings.timing.first / 1000) * 2 ** (tries - 1) : 0;
        refused ||= status === 401 && !retryAfter;
        await pause(retryAfter ?? unsaid, end);
      }
    }
  }

  /**
   * What a stream and a poll send, by requests of their own.
   *
   * @param who the user, once that is known: a token may be good for others, too
   */
  function requests(target: Target, who: { user?: string } = {}): Link {
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
          await request("/v1/ack", { device: target.device, id, broadcast });
        } catch (e) {
          // Tried again, unless a later one says it too.
          if (!due.has(broadcast)) due.set(broadcast, id);
          const { retryAfter = 0 } = e as PushError;
          pause = Math.max(pause, 4 * ACK_PAUSE, Math.min(retryAfter, 60) * 1000);
        }
      }
      timer = due.size && !closed ? setTimeout(acknowledge, pause) : undefined;
    };
    /** Asks, once more with another token where this one is refused, and so does what follows. */
    const request = async (path: string, body?: unknown) => {
      const { token, tokens } = target;
      try {
        return await ask(target, path, body);
      } catch (e) {
        if ((e as PushError).status !== 401 || !tokens || tokens.fixed) throw e;
        tokens.doubt(token);
        target = { ...target, token: await tokens.get() };
        return ask(target, path, body);
      }
    };
    return {
      most: 1,
      request({ type, topic, ...fields }: ServerMessage) {
        if (type === "publish") return request("/v1/notifications", { to: { topic }, ...fields });
        if (type === "presence") {
          return request(`/v1/topic/presence?topic=${encodeURIComponent(topic as string)}`);
        }
        return request(`/v1/user/${type}?${new URLSearchParams({ ...who })}`, fields);
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

  return { get, query, refusal, poll, ended, requests, history };
}

/** What went wrong; Node tells that only as the cause. */
function reasonOf(error: unknown): string {
  const { cause } = Object(error);
  return cause ? `${error} (${cause})` : String(error);
}

/** Whether topics may be the reason of a refusal. */
function mayBeForTopics({ status = 0 }: PushError): boolean {
  return [400, 403].includes(status);
}
