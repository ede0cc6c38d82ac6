import { sleep } from "./backoff.js";
import { PushError } from "./errors.js";
import type { Link } from "./transports/link.js";
import type { Reply, ServerMessage } from "./types.js";

interface Call {
  readonly message: ServerMessage;
  resolve(reply: Reply): void;
  reject(error: Error): void;
}

/**
 * The requests of the application: sent on whichever link there is, or when there is one.
 *
 * @param ready the link there is
 * @param most how many may wait
 */
export function calls(ready: () => Link | undefined, most: number) {
  const waiting: Call[] = [];
  let sending = false;
  let closed: PushError | undefined;

  function call(message: ServerMessage): Promise<Reply> {
    if (message.ephemeral && !waiting.length) {
      // Worthless by the time that there is a connection.
      return ready()?.request(message) ?? Promise.resolve({ durability: "none", connections: 0 });
    }
    if (closed) return Promise.reject(closed);
    if (waiting.length >= most) {
      return Promise.reject(new PushError("queue_full", `${most} requests wait already`));
    }
    return new Promise((resolve, reject) => {
      waiting.push({ message, resolve, reject });
      flush();
    });
  }

  /** Sends what waits, one after the other, so that the order is kept when one is put off. */
  async function flush(): Promise<void> {
    if (sending) return;
    sending = true;
    for (;;) {
      const link = ready();
      const call = waiting[0];
      if (!link || !call) break;
      try {
        call.resolve(await link.request(call.message));
        waiting.shift();
      } catch (e) {
        const error = e as PushError;
        if (error.code === "rate_limited") {
          await sleep((error.retryAfter ?? 1) * 1000);
        } else if (error.code !== "unknown" || call.message.type === "publish") {
          call.reject(error);
          waiting.shift();
        } else if (link === ready()) {
          await sleep(1000);
        }
      }
    }
    sending = false;
  }

  function close(reason: PushError): void {
    closed = reason;
    for (const { reject } of waiting.splice(0)) reject(reason);
  }

  return { call, flush, close };
}
