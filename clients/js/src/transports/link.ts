import type { PushError } from "../errors.js";
import type { Tokens } from "../tokens.js";
import type { Reply, ServerMessage, Timing } from "../types.js";

/** What to connect to, and as whom. */
export interface Target {
  readonly url: string;
  readonly device: string;
  readonly token: string;
  /** The topics and the last id that was seen of each; a WebSocket subscribes by messages. */
  readonly topics: ReadonlyMap<string, string | undefined>;
  readonly WebSocket: any;
  readonly fetch: typeof globalThis.fetch | undefined;
  readonly timing: Timing;
  /** For another one, where that one is refused. */
  readonly tokens?: Tokens;
}

/** Whom a link tells. The first message is `welcome`; the end never comes while opening. */
export interface LinkEvents {
  message(message: ServerMessage): void;
  /** Something came, be it only a sign of life. */
  traffic(): void;
  /** The topics of the target are subscribed to, and what was kept of them has come. */
  subscribed(place: (topic: string) => string): void;
  /** A topic of the target is refused. */
  refused(topic: string, error: PushError): void;
  end(error: PushError): void;
}

/** One connection, however it is carried. */
export interface Link {
  /** Most requests under way, so that they stay in order. */
  readonly most: number;
  /** Sends a message that is answered. Rejects with a `PushError`. */
  request(message: ServerMessage): Promise<Reply>;
  ack(message: ServerMessage): void;
  /** A notification must come again, where it does not by itself. */
  failed?(): void;
  close(): void;
}

export type Opener = (target: Target, on: LinkEvents) => Link;

/** Reads a message; what is none reads as one of no type, as later servers may send such. */
export function parse(text: string): ServerMessage {
  try {
    return Object(JSON.parse(text));
  } catch {
    return { type: "" };
  }
}

/**
 * Positions in topics, as a stream or a poll takes and gives them. Nodes of before know no
 * encoding: what they take for a name is left as it is.
 */
export function places(topics: Target["topics"]): string {
  return [...topics]
    .flatMap(([name, at]) =>
      at ? [`t:${name.replace(/[^\w.:@=-]+/g, encodeURIComponent)}=${at}`] : [],
    )
    .join();
}

/** The place in a topic that a position tells, `0-0` without one. */
export function placeIn(position: string, topic: string): string {
  for (const each of position.split(",")) {
    const [name, at] = each.split(/=(?=[^=]*$)/);
    if (decodeURIComponent(name!) === `t:${topic}`) return at!;
  }
  return "0-0";
}
