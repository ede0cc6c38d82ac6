import { sleep } from "./backoff.js";
import { ackable, Inbox, type Item } from "./delivery.js";
import { PushError } from "./errors.js";
import { loadTabs } from "./parts.js";
import { session } from "./session.js";
import { settings } from "./settings.js";
import { checked } from "./text.js";
import { Tokens } from "./tokens.js";
import { fallback } from "./transports/loaded.js";
import type {
  Events,
  Handler,
  Hooks,
  Notification,
  Options,
  Present,
  Published,
  PublishFields,
  Reply,
  ServerMessage,
  Source,
  State,
} from "./types.js";

/** Most notifications that wait for their handlers. */
const MOST_QUEUED = 1000;
/** Most notifications that are acknowledged by one message. */
const MOST_TOGETHER = 16;
/** Milliseconds that an acknowledgement waits for others at most. */
const ACK_PAUSE = 50;
/** Why a handler ended that was not done. */
const LEFT = {};

/** Whether the platform has what tabs need to share a connection. */
function tabsWork(): boolean {
  return typeof BroadcastChannel === "function" && !!globalThis.navigator?.locks;
}

/** A client: made by `connect`. */
export class Push implements AsyncIterable<Notification> {
  #state: State = { status: "connecting" };
  #inbox = new Inbox();
  /** Where notifications come from, and the same before it is there. */
  #source: Source | undefined;
  #coming!: Promise<Source>;
  #manual: boolean;
  #handlers = new Map<string, Set<Handler<never>>>();
  #readers = new Set<() => void>();
  #topics = new Set<string>();
  #handling = false;
  #paused = false;
  /** The newest handled notification of each feed that is not acknowledged. */
  #due = new Map<boolean, Item>();
  #handled = 0;
  #timer: ReturnType<typeof setTimeout> | undefined;

  /** @internal */
  constructor(options: Options, origin: string | undefined) {
    const complete = settings(options, origin);
    const tokens = new Tokens(options.token);
    this.#manual = options.ack === "manual";
    const hooks: Hooks = {
      message: (message) => this.#receive(message),
      state: (state) => this.#changed(state),
      error: (error) => this.#emit("error", error),
    };
    const make = (to: Hooks) => session(complete, tokens, to);
    const shares = (options.share ?? typeof document !== "undefined") && tabsWork();
    const begin = async () => {
      // Whether the part comes or not, this tab is to have a connection.
      const part =
        shares && (await Promise.race([loadTabs(), sleep(complete.timing.open)]).catch(() => {}));
      if (this.#state.status === "closed") throw new PushError("closed", "the client was closed");
      this.#source = part
        ? new part.Tabs(make, complete, tokens, hooks, PushError, fallback)
        : make(hooks);
      return this.#source;
    };
    this.#coming = begin();
    const topics = options.topics ?? [];
    const wanted = Array.isArray(topics) ? topics.map((name) => [name]) : Object.entries(topics);
    for (const [topic, since] of wanted as [string, string?][]) {
      this.subscribe(topic, { since }).catch((error) => this.#emit("error", error));
    }
    this.#coming.then(
      (source) => source.start(),
      () => {},
    );
  }

  /** How the connection is. */
  get state(): State {
    return this.#state;
  }

  /**
   * Calls a handler with each event of a kind. The acknowledgement of a notification follows the
   * promise that its handler returns; the next one waits for it.
   *
   * @returns a function that removes the handler
   */
  on<K extends keyof Events>(kind: K, handler: Handler<Events[K]>): () => void {
    const handlers = this.#handlers.get(kind) ?? new Set();
    this.#handlers.set(kind, handlers.add(handler as Handler<never>));
    if (kind === "notification") this.#handle();
    return () => void handlers.delete(handler as Handler<never>);
  }

  /**
   * The notifications, one at a time: each is acknowledged when the next one is asked for. A loop
   * that is left by `break` leaves its last one to the next handler, unless `ack()` was called.
   * Ends when the client is closed; throws if the server refuses the client for good.
   */
  async *[Symbol.asyncIterator](): AsyncGenerator<Notification, void> {
    let value: Notification | undefined;
    let wake = () => {};
    let settle = wake as (why?: unknown) => void;
    const remove = this.on("notification", (next) => {
      value = next;
      wake();
      return new Promise<void>((resolve, reject) => {
        settle = (why) => (why ? reject(why) : resolve());
      });
    });
    const end = () => wake();
    this.#readers.add(end);
    try {
      for (;;) {
        if (value) {
          yield value;
          value = undefined;
          settle();
        } else if (this.#state.status === "closed" && !this.#inbox.queue.length) {
          if (this.#state.error) throw this.#state.error;
          return;
        } else {
          await new Promise<void>((resolve) => {
            wake = resolve;
          });
        }
      }
    } finally {
      remove();
      this.#readers.delete(end);
      settle(LEFT);
    }
  }

  /**
   * Listens to a topic. With `since`, what is kept after that id comes first; without, the latest
   * message of each collapse key.
   *
   * @returns the newest id of the topic
   */
  async subscribe(
    topic: string,
    { since }: { since?: string | null | undefined } = {},
  ): Promise<{ last: string | null }> {
    checked(topic);
    this.#topics.add(topic);
    try {
      return await (await this.#coming).subscribe(topic, since ?? undefined);
    } catch (error) {
      this.#topics.delete(topic);
      throw error;
    }
  }

  /** Stops listening to a topic. */
  async unsubscribe(topic: string): Promise<void> {
    this.#topics.delete(topic);
    this.#inbox.leave(topic);
    await (await this.#coming).unsubscribe(topic);
  }

  /**
   * Publishes to a topic, now or when there is a connection. What is ephemeral does not wait.
   *
   * @throws PushError with `unknown` if the connection was lost before the answer came
   */
  publish(topic: string, data: unknown, fields: PublishFields = {}): Promise<Published> {
    return this.#call({ ...fields, type: "publish", topic, data });
  }

  /** Who listens to a topic; on a WebSocket also tells, as `presence` events, who comes and goes. */
  async presence(topic: string): Promise<Present> {
    const { users, count } = await this.#call({ type: "presence", topic });
    return { topic, users, count };
  }

  /** Ends the connection and every loop. May be called twice. */
  close(): void {
    this.#flush();
    if (this.#source) this.#source.close();
    else this.#changed({ status: "closed" });
  }

  async #call(message: ServerMessage): Promise<Reply> {
    return (await this.#coming).call(checked(message));
  }

  #receive(message: ServerMessage): void {
    const { type, topic } = message;
    if (type === "welcome") this.#inbox.connected();
    else if (topic !== undefined && !this.#topics.has(topic))
      return; // another tab's
    else if (type === "notification") this.#take(message);
    else {
      if (type === "gap" && message.reason === "reset") this.#inbox.reset(message);
      if (type === "withdrawn") this.#inbox.withdraw(message.id as string);
      this.#emit(type as "gap", message as never);
    }
  }

  #take(message: ServerMessage): void {
    const intake = this.#inbox.take(message);
    if (intake === "ack" && ackable(message)) {
      if (!this.#manual || this.#inbox.acked(message)) this.#source?.ack(message);
    } else if (intake === "handle") {
      const { queue } = this.#inbox;
      if (queue.length >= MOST_QUEUED && !this.#paused) {
        this.#paused = !!this.#source?.pause(queue);
      }
      this.#handle();
    }
  }

  /** Hands what waits to the handlers, one notification at a time, in order. */
  async #handle(): Promise<void> {
    if (this.#handling) return;
    this.#handling = true;
    for (;;) {
      const handlers = [...(this.#handlers.get("notification") ?? [])];
      const item = handlers.length ? this.#inbox.queue.shift() : undefined;
      if (!item) break;
      const value = { ...item.message, ack: () => this.#ack(item) };
      const results = await Promise.allSettled(
        handlers.map(async (handler) => handler(value as never)),
      );
      const failures = results.flatMap((each) => (each.status === "rejected" ? [each.reason] : []));
      if (!failures.length) this.#done(item);
      else if (failures.every((each) => each === LEFT)) {
        if (item.feed && this.#inbox.acked(item.message)) this.#inbox.done(item);
        else this.#inbox.queue.unshift(item);
      } else {
        this.#inbox.fail(item);
        this.#source?.failed();
        for (const error of failures) if (error !== LEFT) this.#emit("error", error);
      }
      if (this.#paused && !this.#inbox.queue.length) {
        this.#paused = false;
        this.#source?.resume();
      }
    }
    this.#handling = false;
    // Whatever was handled last, also what needs no acknowledgement.
    this.#flush();
  }

  #done(item: Item): void {
    this.#inbox.done(item);
    if (this.#manual || !ackable(item.message)) return;
    this.#due.set(!!item.message.broadcast, item);
    // One for several saves requests; but the next handler may be slow.
    if (++this.#handled >= MOST_TOGETHER) this.#flush();
    else this.#timer ??= setTimeout(() => this.#flush(), ACK_PAUSE);
  }

  #flush(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    if (!this.#due.size) return;
    for (const item of this.#due.values()) this.#ack(item);
    this.#due.clear();
    this.#handled = 0;
  }

  #ack(item: Item): void {
    if (this.#inbox.ack(item)) this.#source?.ack(item.message);
  }

  #changed(state: State): void {
    this.#state = state;
    this.#emit("state", state);
    if (state.status === "closed") for (const end of this.#readers) end();
  }

  #emit<K extends keyof Events>(kind: K, event: Events[K]): void {
    const handlers = this.#handlers.get(kind);
    if (kind === "error" && !handlers?.size) console.error("pushsvc:", event);
    for (const handler of handlers ?? []) {
      try {
        (handler as Handler<Events[K]>)(event);
      } catch (error) {
        console.error("pushsvc:", error);
      }
    }
  }
}
