import { PushError } from "../errors.js";
import type { Fallback } from "../fallback.js";
import { loadFallback } from "../parts.js";
import type { Link, Opener } from "./link.js";

/** What most clients never need, loaded by the first who does. Rejects with a `PushError`. */
export async function fallback(): Promise<Fallback> {
  try {
    return (await loadFallback()).fallback(PushError);
  } catch (error) {
    throw new PushError("lost", String(error));
  }
}

/** A transport that is loaded first. If it cannot be loaded, that is the end of the attempt. */
export function loaded(name: "sse" | "poll"): Opener {
  return (target, on) => {
    let link: Link | undefined;
    let closed = false;
    fallback().then((part) => {
      if (!closed) link = part[name](target, on);
    }, on.end);
    return {
      most: 1,
      request: (message) => (link as Link).request(message),
      ack: (message) => link?.ack(message),
      failed: () => link?.failed?.(),
      close() {
        closed = true;
        link?.close();
      },
    };
  };
}
