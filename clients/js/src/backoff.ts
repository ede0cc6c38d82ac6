import type { PushError } from "./errors.js";

/**
 * What to do after a connection, or the attempt to get one, ended: `stop`; `retry`; `renew` the
 * token and retry; or the same because it was `refused`, which is worth one try only.
 */
export type Verdict = "stop" | "retry" | "renew" | "refused";

/** Decides by the range of the close code, or by the status of the refusal. */
export function judge({ code, status = 0 }: Pick<PushError, "code" | "status">): Verdict {
  const close = Number(code);
  if (status === 401) return "refused";
  if ([400, 403, 426].includes(status) || (close >= 4500 && close < 5000)) return "stop";
  return close === 4100 ? "renew" : "retry";
}

/**
 * Milliseconds to wait on top of what the server said ("full jitter"): without the random part,
 * those who were cut off together would come back together.
 *
 * @param failures how many attempts, or short connections, there were in a row before this one
 * @param random from 0 to 1
 */
export function jitter(failures: number, first: number, max: number, random: number): number {
  return random * Math.min(max, first * 2 ** failures);
}

/**
 * Whether to try the next transport, now that a socket could not be opened. Where sockets have
 * worked it is the node that is gone, most likely: who had a socket would come back on something
 * worse, and move to a socket again a while later, with all the others.
 *
 * @param worked whether a socket of this client was ever open
 * @param missed how many could not be opened since
 */
export function fallsBack(worked: boolean, missed: number): boolean {
  return !worked || missed >= 5;
}

/** Waits; at most as long as a timer can, which takes more for nothing. */
export function sleep(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, Math.min(ms, 2e9)));
}
