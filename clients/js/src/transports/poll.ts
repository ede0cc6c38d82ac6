import { sleep } from "../backoff.js";
import type { ErrorClass } from "../errors.js";
import type { Http } from "./http.js";
import { type Opener, placeIn } from "./link.js";

/** Seconds that a request waits for a message. */
const WAIT = 25;
/** Milliseconds between two requests at least: only so many are allowed. */
const PAUSE = 150;
/** Milliseconds beyond that in which the answer must come. */
const SLACK = 15_000;

/** Milliseconds after which what was not acknowledged is asked for again. */
const AGAIN = 30_000;

/** One request after the other, for where nothing that stays open gets through. */
export const poll =
  ({ ended, poll: request, requests }: Http, PushError: ErrorClass): Opener =>
  (target, on) => {
    let abort = new AbortController();
    let over = false;
    /** How many are unread, as the last answer to anything told. */
    let count: number | undefined;
    const { close, ...link } = requests(target);
    let again: ReturnType<typeof setTimeout> | undefined;
    const listen = async () => {
      let position: string | undefined;
      while (!over) {
        // The first one shows at once that it works.
        const wait = position === undefined ? 0 : WAIT;
        abort = new AbortController();
        const timer = setTimeout(() => abort.abort(), wait * 1000 + SLACK);
        const { signal } = abort;
        try {
          const answer = await request(target, position, wait, signal, count);
          const { messages, position: next, unread } = answer;
          if (over) return;
          on.traffic();
          if (position === undefined) {
            on.message({ type: "welcome", device: target.device });
            on.subscribed((topic) => placeIn(next, topic));
          }
          position = next;
          for (const message of messages) on.message(message);
          // Of what was read elsewhere between two polls only this tells.
          if (unread !== undefined) on.message({ type: "read", ids: [], unread });
          count = unread;
        } finally {
          clearTimeout(timer);
        }
        await sleep(PAUSE);
      }
    };
    listen().catch((error) => ended(target, on, error, abort));
    return {
      ...link,
      async request(message) {
        const reply = await link.request(message);
        count = reply.unread ?? count;
        return reply;
      },
      failed() {
        // A poll goes on behind what it brought, so only a new beginning brings it again.
        again ??= setTimeout(() => on.end(new PushError("lost", "a notification failed")), AGAIN);
      },
      close() {
        over = true;
        clearTimeout(again);
        abort.abort();
        close();
      },
    };
  };
