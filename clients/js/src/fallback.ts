import { diagnosis } from "./diagnosis.js";
import type { ErrorClass } from "./errors.js";
import { type Http, http } from "./transports/http.js";
import type { Opener } from "./transports/link.js";
import { poll } from "./transports/poll.js";
import { sse } from "./transports/sse.js";

/** What works without a WebSocket, and what is asked by requests. */
export interface Fallback extends Record<"sse" | "poll", Opener> {
  readonly http: Http;
  readonly diagnose: ReturnType<typeof diagnosis>;
}

/** Makes it; a part of its own, as most clients never need it. */
export function fallback(PushError: ErrorClass): Fallback {
  const made = http(PushError);
  return {
    http: made,
    diagnose: diagnosis(PushError),
    sse: sse(made, PushError),
    poll: poll(made, PushError),
  };
}
