import { sleep } from "./backoff.js";
import { PushError } from "./errors.js";
import type { Link } from "./transports/link.js";
import type { Reply, ServerMessage } from "./types.js";

/** Most requests that wait for their turn on a connection. */
const MOST_WAITING = 1000;

interface Call {
  /** Its place in the order. */
  readonly turn: number;
  readonly message: ServerMessage;
  resolve(reply: Reply): void;
  reject(error: Error): void;
}

/**
 * The requests of the application: sent on whichever link there is, or when there is one.
 *
 * Several are under way at a time. Once the server says that it is too many, they go one by one at
 * the pace that it names: who goes on asking is disconnected.
 *
 * @param ready the link there is
 * @param most how many may wait for a link
 */
export function calls(ready: () => Link | undefined, most: number) {
  /** In order. */
  const waiting: Call[] = [];
  let turns = 0;
  let sent = 0;
  /** Seconds after each request; 0 until the server says that it is too many. */
  let pace = 0;
  let closed: PushError | undefined;

  function call(message: ServerMessage): Promise<Reply> {
    if (closed) return Promise.reject(closed);
    const link = ready();
    if (message.ephemeral) {
      // Worthless by the time that there is a connection.
      return link?.request(message) ?? Promise.resolve({ durability: "none", connections: 0 });
    }
    if (waiting.length >= (link ? MOST_WAITING : most)) {
      return Promise.reject(new PushError("queue_full", `${waiting.length} requests wait already`));
    }
    return new Promise((resolve, reject) => {
      waiting.push({ turn: turns++, message, resolve, reject });
      flush();
    });
  }

  /** Sends what waits, as far as it may be; a new link begins with no pace. */
  function flush(now = pace): void {
    pace = now;
    for (;;) {
      const link = ready();
      if (!link || !waiting.length || sent >= (pace ? 1 : link.most)) return;
      send(link, waiting.shift() as Call);
    }
  }

  async function send(link: Link, call: Call): Promise<void> {
    sent++;
    try {
      call.resolve(await link.request(call.message));
    } catch (e) {
      const { code, retryAfter } = e as PushError;
      const limited = code === "rate_limited";
      if (limited) pace = Math.max(pace, retryAfter || 1);
      if (
        !closed &&
        (limited || (code === "unknown" && call.message.type !== "publish" && link !== ready()))
      ) {
        waiting.push(call);
        waiting.sort((a, b) => a.turn - b.turn);
      } else call.reject(e as Error);
    }
    if (pace) await sleep(pace * 1000);
    sent--;
    flush();
  }

  function close(reason: PushError): void {
    closed = reason;
    for (const { reject } of waiting.splice(0)) reject(reason);
  }

  return { call, flush, close };
}
