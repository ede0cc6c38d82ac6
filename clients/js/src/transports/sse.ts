import type { ErrorClass } from "../errors.js";
import type { Http } from "./http.js";
import { type Opener, parse, placeIn } from "./link.js";

/**
 * Reads an event stream (HTML Standard, section 9.2.6): feed it text as it comes.
 *
 * @param event is called with each event's `data`, undefined where it has none, and `id`
 */
export function reader(
  event: (data: string | undefined, id: string) => void,
): (text: string) => void {
  let rest = "";
  let data: string[] = [];
  let id = "";
  /** Whether the event has an `id` of its own: a comment has none, and is no event. */
  let placed = false;
  return (text) => {
    const lines = (rest + text).split("\n");
    rest = lines.pop() as string;
    for (const each of lines) {
      const line = each.replace(/\r$/, "");
      const [, field, value = ""] = /^([^:]*)(?:: ?(.*))?$/s.exec(line) as RegExpExecArray;
      if (line === "") {
        if (data.length || placed) event(data.length ? data.join("\n") : undefined, id);
        data = [];
        placed = false;
      } else if (field === "data") data.push(value);
      else if (field === "id") {
        id = value;
        placed = true;
      }
    }
  };
}

/** An event stream, read by fetch: an `EventSource` tells no status and sends no token. */
export const sse =
  ({ ended, get, query, refusal, requests }: Http, PushError: ErrorClass): Opener =>
  (target, on) => {
    const abort = new AbortController();
    const who: { user?: string } = {};
    const { close, ...link } = requests(target, who);
    const listen = async () => {
      const answer = await get(target, `/v1/stream${query(target)}`, {
        signal: abort.signal,
      });
      if (!answer.ok) throw await refusal(answer);
      const stream = /^text\/event-stream/.test(answer.headers.get("Content-Type") ?? "");
      const body = stream && answer.body?.getReader?.();
      if (!body) throw new PushError("unusable", "event streams do not get through");
      const decoder = new TextDecoder();
      const read = reader((data, id) => {
        if (data === undefined) on.subscribed((topic) => placeIn(id, topic));
        else {
          const message = parse(data);
          if (message.type === "welcome") who.user = message.user;
          on.message(message);
        }
      });
      for (;;) {
        const { done, value } = await body.read();
        if (done) throw new PushError("lost", "the stream ended");
        on.traffic();
        read(decoder.decode(value, { stream: true }));
      }
    };
    listen().catch((error) => ended(target, on, error, abort));
    return {
      ...link,
      close() {
        abort.abort();
        close();
      },
    };
  };
