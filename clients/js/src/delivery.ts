import { compare } from "./ids.js";
import type { ServerMessage } from "./types.js";

/** The place of this client in one feed: the mailbox, the broadcast, or a topic. */
class Feed {
  /** The newest id that was taken in. */
  seen = "";
  /** The newest id that was handled. */
  done = "";
  /** The newest id that was acknowledged. */
  acked = "";
  /** Whether a notification was not handled, so that it and all behind it must come again. */
  failed = false;
}

/** A notification that waits for its handlers. */
export interface Item {
  readonly message: ServerMessage;
  readonly feed: Feed | undefined;
}

/** What to do with a notification that came: `handle` it, `ack` it again, or `skip` it. */
export type Intake = "handle" | "ack" | "skip";

/** Which feed a message is of. */
export function feedOf(message: ServerMessage): string {
  if (message.topic) return `t:${message.topic}`;
  return message.broadcast ? "b" : "u";
}

/** Whether the feed of a message is acknowledged, and so comes again until it is. */
export function ackable(message: ServerMessage): boolean {
  return !!message.id && !message.topic;
}

const upTo = (id: string, place: string) => compare(id, place) <= 0;

/** Puts what arrives in order, each once, and knows what is handled. Knows no time and no I/O. */
export class Arrivals {
  /** What is to be handled, oldest first. */
  queue: Item[] = [];
  readonly #feeds = new Map<string, Feed>();

  #feed(message: ServerMessage): Feed {
    const name = feedOf(message);
    const feed = this.#feeds.get(name) ?? new Feed();
    this.#feeds.set(name, feed);
    return feed;
  }

  /** Takes a notification in. */
  take(message: ServerMessage): Intake {
    const { id } = message;
    if (id === undefined) {
      this.queue.push({ message, feed: undefined });
      return "handle";
    }
    const feed = this.#feed(message);
    if (feed.failed && !message.attempt) return "skip";
    feed.failed = false;
    if (upTo(id, feed.seen)) return upTo(id, feed.done) ? "ack" : "skip";
    feed.seen = id;
    this.queue.push({ message, feed });
    return "handle";
  }

  /** A connection begins: it brings what is not acknowledged from the start. */
  connected(): void {
    for (const feed of this.#feeds.values()) feed.failed = false;
  }

  /** The ids of a feed may come again: the server lost them. */
  reset(message: ServerMessage): void {
    this.#feeds.delete(feedOf(message));
  }

  /** A topic is not listened to any more. */
  leave(topic: string): void {
    this.#feeds.delete(`t:${topic}`);
    this.queue = this.queue.filter(({ message }) => message.topic !== topic);
  }

  /** A notification of the mailbox is withdrawn: it is not handled any more. */
  withdraw(id: string): void {
    this.queue = this.queue.filter(({ message }) => message.id !== id || !ackable(message));
  }

  /** The handlers of a notification are done. */
  done({ message, feed }: Item): void {
    if (feed && !upTo(message.id as string, feed.done)) feed.done = message.id as string;
  }

  /** A notification was handled elsewhere, and so is what waits up to it. */
  handled(message: ServerMessage): Item {
    const item = { message, feed: this.#feed(message) };
    const id = message.id as string;
    this.queue = this.queue.filter((other) => {
      return other.feed !== item.feed || !upTo(other.message.id as string, id);
    });
    this.done(item);
    return item;
  }

  /**
   * A notification could not be handled. Acknowledgements are cumulative, so what came behind it
   * is put aside with it: the server sends all of it again, in order.
   */
  fail(item: Item): void {
    const { message, feed } = item;
    if (!feed || !ackable(message) || upTo(message.id as string, feed.acked)) {
      this.done(item);
      return;
    }
    feed.seen = feed.done;
    feed.failed = true;
    this.queue = this.queue.filter((other) => other.feed !== feed);
  }

  /** Whether an acknowledgement says something new; it is noted. */
  ack({ message, feed }: Item): boolean {
    if (!feed || !ackable(message) || upTo(message.id as string, feed.acked)) return false;
    feed.acked = message.id as string;
    return true;
  }

  /** Whether it was acknowledged before. */
  acked(message: ServerMessage): boolean {
    return upTo(message.id as string, this.#feed(message).acked);
  }
}
