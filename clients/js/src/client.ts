import { sleep } from "./backoff.js";
import { ackable, Arrivals, type Item } from "./delivery.js";
import { PushError } from "./errors.js";
import { lazy } from "./lazy.js";
import { loadTabs } from "./parts.js";
import { type Reach, reach } from "./reach.js";
import { session } from "./session.js";
import { type Settings, settings } from "./settings.js";
import { checked } from "./text.js";
import { Tokens } from "./tokens.js";
import { fallback } from "./transports/loaded.js";
import type {
  Events,
  Handler,
  History,
  HistoryQuery,
  Hooks,
  Inbox,
  InboxQuery,
  Incoming,
  Options,
  Page,
  Present,
  Published,
  PublishFields,
  PushDevice,
  Reply,
  ServerMessage,
  Source,
  State,
  Told,
} from "./types.js";

/** Most notifications that wait for their handlers. */
const MOST_QUEUED = 1000;
/** Most notifications that are acknowledged by one message. */
const MOST_TOGETHER = 16;
/** Milliseconds that an acknowledgement waits for others at most. */
const ACK_PAUSE = 50;
/** The client's own kinds of events; others are names of what is published. */
const OWN = /^(state|gap|presence|withdrawn|error)$/;
/** Why a handler ended that was not done. */
const LEFT = {};
/** For what an inbox takes while it is shown; no event is called that. */
const SHOWN = "\n";

/** Whether the platform has what tabs need to share a connection. */
function tabsWork(): boolean {
  return typeof BroadcastChannel === "function" && !!globalThis.navigator?.locks;
}

/** A client: made by `connect`. */
export class Push<E extends object = {}> implements AsyncIterable<Incoming<E>> {
  /** Reaching this device while no page is open. */
  readonly push: PushDevice;
  readonly #reach: Reach;
  #state: State = { status: "connecting" };
  #arrivals = new Arrivals();
  /** Where notifications come from, and the same before it is there. */
  #source: Source | undefined;
  #coming!: Promise<Source>;
  #manual: boolean;
  #settings: Settings;
  #tokens: Tokens;
  #handlers = new Map<string, Set<Handler<never>>>();
  /** Those of notifications: of all, and by the event that they are for. */
  #takers = new Map<string, Set<Handler<never>>>();
  #readers = new Set<() => void>();
  #inboxes = new Map<string, Inbox>();
  /** Are told each message and, without one, that the state has changed. */
  #watchers = new Set<(message?: ServerMessage) => void>();
  #ending = new AbortController();
  #topics = new Set<string>();
  #handling = false;
  /** Whether what is to be handled next was left by a loop: that is for the next handler. */
  #left = false;
  #paused = false;
  /** The newest handled notification of each feed that is not acknowledged. */
  #due = new Map<boolean, Item>();
  #handled = 0;
  /** What was said last in the console; undefined once there was a connection. */
  #warned: string | undefined = "";
  #timer: ReturnType<typeof setTimeout> | undefined;

  /** @internal */
  constructor(options: Options, origin: string | undefined) {
    const complete = (this.#settings = settings(options, origin));
    const tokens = (this.#tokens = new Tokens(options.token));
    this.push = this.#reach = reach({
      settings: complete,
      tokens,
      state: () => this.#state,
      watch: this.#watch,
    });
    this.#manual = options.ack === "manual";
    const hooks: Hooks = {
      message: (message) => this.#receive(message),
      state: (state) => this.#changed(state),
      error: (error) => this.#emit("error", error),
      acked: (message) => this.#takers.size || this.#ack(this.#arrivals.handled(message)),
    };
    const make = (to: Hooks) => session(complete, tokens, to);
    const shares = (options.share ?? typeof document !== "undefined") && tabsWork();
    const begin = async () => {
      // Whether the part comes or not, this tab is to have a connection.
      const part =
        shares && (await Promise.race([loadTabs(), sleep(complete.timing.open)]).catch(() => {}));
      this.#open();
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
   * Calls a handler with each event of a kind, or with the notifications of one declared event. The
   * acknowledgement of a notification follows the promise that its handlers return; the next one
   * waits for it. What none of them is for counts as handled.
   *
   * @returns a function that removes the handler
   */
  on<K extends keyof Events | (keyof E & string)>(
    kind: K,
    handler: Handler<Told<E, K>>,
  ): () => void {
    const kinds = OWN.test(kind) ? this.#handlers : this.#takers;
    const handlers = kinds.get(kind) ?? new Set();
    kinds.set(kind, handlers.add(handler as Handler<never>));
    this.#handle();
    return () => {
      if (handlers.delete(handler as Handler<never>) && !handlers.size) kinds.delete(kind);
    };
  }

  /**
   * The notifications, one at a time: each is acknowledged when the next one is asked for. A loop
   * that is left by `break` leaves its last one to the next handler, unless `ack()` was called.
   * Ends when the client is closed; throws if the server refuses the client for good.
   */
  async *[Symbol.asyncIterator](): AsyncGenerator<Incoming<E>, void> {
    let value: Incoming<E> | undefined;
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
        } else if (this.#state.status === "closed" && !this.#arrivals.queue.length) {
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
    this.#arrivals.leave(topic);
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
  presence(topic: string): Promise<Present> {
    return this.#call({ type: "presence", topic });
  }

  /**
   * What the user's mailbox keeps, newest first, acknowledged or not: a page of it for `await`, and
   * for `for await` one notification after the other, page by page. Changes nothing.
   */
  history({ before, limit }: HistoryQuery = {}): History<E> {
    const page = (before: string | null | undefined): Promise<Page<E>> =>
      this.#page({ before, limit });
    const first = page(before);
    return Object.assign(first, {
      async *[Symbol.asyncIterator]() {
        for (let next: Promise<Page<E>> | null = first; next;) {
          const { notifications, next: before }: Page<E> = await next;
          yield* notifications;
          next = before ? page(before) : null;
        }
      },
    }) as History<E>;
  }

  /**
   * The user's notifications and which of them were read: the same on all devices. All who ask with
   * the same query share one.
   */
  inbox({ pageSize = 20, event, archived = false }: InboxQuery = {}): Inbox<E> {
    const key = JSON.stringify([pageSize, event, archived]);
    const inboxes = this.#inboxes;
    const inbox =
      inboxes.get(key) ??
      lazy(
        {
          call: (message) => this.#call(message),
          list: (query) => this.#page(query),
          state: () => this.#state,
          watch: this.#watch,
          take: () => this.on(SHOWN as never, () => {}),
        },
        { pageSize, event, archived },
        () => inboxes.delete(key),
      );
    inboxes.set(key, inbox);
    return inbox as unknown as Inbox<E>;
  }

  /** Ends the connection and every loop. May be called twice. */
  close(): void {
    this.#flush();
    if (this.#source) this.#source.close();
    else this.#changed({ status: "closed" });
  }

  #watch = (told: (message?: ServerMessage) => void) => {
    this.#watchers.add(told);
    return () => this.#watchers.delete(told);
  };

  #open(): void {
    this.#ending.signal.throwIfAborted();
  }

  async #page(query: object): Promise<any> {
    this.#open();
    const { http } = await fallback();
    const { user } = this.#state;
    return http.history(this.#settings, this.#tokens, { user, ...query }, this.#ending.signal);
  }

  async #call(message: ServerMessage): Promise<Reply> {
    return (await this.#coming).call(checked(message));
  }

  #receive(message: ServerMessage): void {
    const { type, topic } = message;
    for (const told of this.#watchers) told(message);
    if (type === "welcome") this.#arrivals.connected();
    else if (topic !== undefined && !this.#topics.has(topic))
      return; // another tab's
    else if (type === "notification") this.#take(message);
    else {
      if (type === "gap" && message.reason === "reset") this.#arrivals.reset(message);
      if (type === "withdrawn") this.#arrivals.withdraw(message.id as string);
      this.#emit(type as "gap", message as never);
    }
  }

  #take(message: ServerMessage): void {
    const intake = this.#arrivals.take(message);
    if (intake === "ack" && ackable(message)) {
      if (!this.#manual || this.#arrivals.acked(message)) this.#source?.ack(message);
    } else if (intake === "handle") {
      const { queue } = this.#arrivals;
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
      const some = this.#takers.size > Number(this.#left && this.#takers.has(SHOWN));
      const item = some ? this.#arrivals.queue.shift() : undefined;
      if (!item) break;
      this.#left = false;
      // A set, as an event may be called that too.
      const kinds = new Set(["notification", item.message.event]);
      const handlers = [...kinds].flatMap((kind) => [...(this.#takers.get(kind) ?? [])]);
      const value = { ...item.message, ack: () => this.#ack(item) };
      const results = await Promise.allSettled(
        handlers.map(async (handler) => handler(value as never)),
      );
      const failures = results.flatMap((each) => (each.status === "rejected" ? [each.reason] : []));
      if (!failures.length) this.#done(item);
      else if (failures.every((each) => each === LEFT)) {
        if (item.feed && this.#arrivals.acked(item.message)) this.#arrivals.done(item);
        else {
          this.#arrivals.queue.unshift(item);
          this.#left = true;
        }
      } else {
        this.#arrivals.fail(item);
        this.#source?.failed();
        for (const error of failures) if (error !== LEFT) this.#emit("error", error);
      }
      if (this.#paused && !this.#arrivals.queue.length) {
        this.#paused = false;
        this.#source?.resume();
      }
    }
    this.#handling = false;
    // Whatever was handled last, also what needs no acknowledgement.
    this.#flush();
  }

  #done(item: Item): void {
    this.#arrivals.done(item);
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
    if (this.#arrivals.ack(item)) this.#source?.ack(item.message);
  }

  #changed(state: State): void {
    this.#state = state;
    for (const told of this.#watchers) told();
    this.#emit("state", state);
    const { status, error } = state;
    if (status === "connected") {
      this.#warned = undefined;
      this.#reach.renew();
    }
    if (status === "closed") {
      this.#ending.abort(new PushError("closed", "the client was closed"));
      for (const end of this.#readers) end();
    }
    if (!error || this.#handlers.has("state")) return;
    // Nobody would know why nothing comes.
    if (status === "closed") this.#readers.size || this.#emit("error", error);
    else if (
      status === "waiting" &&
      error.code !== "token" && // which was said
      error.status !== 401 && // before the next token
      ![error.message, undefined].includes(this.#warned)
    ) {
      console.warn("pushsvc: no connection yet:", (this.#warned = error.message));
    }
  }

  #emit<K extends keyof Events>(kind: K, event: Events[K]): void {
    const handlers = this.#handlers.get(kind);
    if (kind === "error" && !handlers) console.error("pushsvc:", event);
    for (const handler of handlers ?? []) {
      try {
        (handler as Handler<Events[K]>)(event);
      } catch (error) {
        console.error("pushsvc:", error);
      }
    }
  }
}
