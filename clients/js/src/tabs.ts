import { sleep } from "./backoff.js";
import type { Item } from "./delivery.js";
import type { ErrorClass, PushError } from "./errors.js";
import type { Fallback } from "./fallback.js";
import { Place } from "./place.js";
import type { Session } from "./session.js";
import type { Settings } from "./settings.js";
import type { Tokens } from "./tokens.js";
import { placeIn } from "./transports/link.js";
import type { Hooks, Reply, ServerMessage, Source, State } from "./types.js";

/** Most messages that wait while a tab catches up with a topic. */
const MOST_HELD = 1000;

/** The user that a token names; empty where it cannot be read. */
export function userOf(token: string): string {
  try {
    const [, claims = ""] = token.split(".");
    return String(JSON.parse(atob(claims.replace(/-/g, "+").replace(/_/g, "/"))).sub);
  } catch {
    return "";
  }
}

type Operation = "call" | "subscribe" | "unsubscribe";

interface Pending {
  readonly op: Operation;
  readonly args: any[];
  resolve(reply: Reply): void;
  reject(error: Error): void;
  sent: boolean;
}

/**
 * One connection for all tabs of a browser that are the same user and device.
 *
 * Whoever holds a Web Lock leads: it has the connection, and passes on what comes. When its tab
 * goes, the lock goes to another. Each tab also holds a lock of its own for as long as it lives,
 * so that the leader learns of its end.
 */
export class Tabs implements Source {
  readonly #make: (hooks: Hooks) => Session;
  readonly #settings: Settings;
  readonly #tokens: Tokens;
  readonly #hooks: Hooks;
  readonly #PushError: ErrorClass;
  readonly #fallback: () => Promise<Fallback>;
  readonly #tab = Math.random().toString(36).slice(2);
  readonly #topics = new Map<string, Place>();
  readonly #pending = new Map<number, Pending>();
  /** As the leader: the topics that each of the other tabs wants. */
  readonly #wanted = new Map<string, Set<string>>();
  /** What came of topics that are being caught up with. */
  readonly #held = new Map<string, ServerMessage[]>();
  readonly #end = new AbortController();
  #calls = 0;
  #key = "";
  #channel: BroadcastChannel | undefined;
  #session: Session | undefined;
  #state: State = { status: "connecting" };
  #leaderKnown = false;

  constructor(
    make: (hooks: Hooks) => Session,
    settings: Settings,
    tokens: Tokens,
    hooks: Hooks,
    PushError: ErrorClass,
    fallback: () => Promise<Fallback>,
  ) {
    this.#make = make;
    this.#settings = settings;
    this.#tokens = tokens;
    this.#hooks = hooks;
    this.#PushError = PushError;
    this.#fallback = fallback;
  }

  async start(): Promise<void> {
    let user = "";
    try {
      user = userOf(await this.#tokens.get());
    } catch {
      // The session asks again, and tells.
    }
    const { signal } = this.#end;
    if (signal.aborted) return;
    const { url, device } = this.#settings;
    // Names may hold spaces, and no line feeds: no two users share a key.
    this.#key = `pushsvc ${url}\n${user}\n${device}`;
    this.#channel = new BroadcastChannel(this.#key);
    this.#channel.onmessage = ({ data }) => this.#heard(data);
    this.#hold(`${this.#key} ${this.#tab}`, () => this.#post({ hello: this.#tab }));
    this.#hold(this.#key, () => this.#lead());
  }

  close(): void {
    if (this.#end.signal.aborted) return;
    if (this.#session) this.#session.close();
    else {
      this.#shut();
      this.#hooks.state({ status: "closed", device: this.#settings.device });
    }
  }

  /** Leaves the other tabs. */
  #shut(): void {
    this.#end.abort();
    this.#channel?.close();
    this.#channel = undefined; // what is answered later goes nowhere
    const error = this.#error("closed", "the client was closed");
    for (const { reject } of this.#pending.values()) reject(error);
    this.#pending.clear();
  }

  /** Takes a lock when it is free, and keeps it unless `granted` says that it is done with it. */
  #hold(name: string, granted: () => unknown): void {
    const { signal } = this.#end;
    const held = navigator.locks.request(name, { signal }, () => {
      if (signal.aborted || granted() === true) return;
      return new Promise<void>((resolve) => {
        signal.addEventListener("abort", () => resolve());
      });
    });
    held.catch(() => {}); // closed while it waited
  }

  /** Where the leading tab handles nothing, what this one handled counts. */
  ack(message: ServerMessage): void {
    const { id, broadcast } = message;
    if (this.#session) this.#session.ack(message);
    else this.#post({ ack: { id, broadcast } });
  }

  failed(): void {
    this.#session?.failed();
  }

  pause(queue: Item[]): boolean {
    if (this.#session) return this.#session.pause(queue);
    const { id: after, topic, broadcast } = (queue.shift() as Item).message;
    this.#hooks.message({
      type: "gap",
      reason: "overflow",
      after,
      topic,
      broadcast,
    } as ServerMessage);
    return false;
  }

  resume(): void {
    this.#session?.resume();
  }

  subscribe(topic: string, since: string | undefined): Promise<{ last: string | null }> {
    const place = this.#topics.get(topic) ?? new Place(since);
    this.#topics.set(topic, place);
    return this.#do("subscribe", [topic, place.since]).catch((error) => {
      this.#topics.delete(topic);
      throw error;
    });
  }

  unsubscribe(topic: string): Promise<void> {
    this.#topics.delete(topic);
    return this.#do("unsubscribe", [topic]);
  }

  call(message: ServerMessage): Promise<Reply> {
    return this.#do("call", [message]);
  }

  #do(op: Operation, args: any[]): Promise<any> {
    if (this.#end.signal.aborted) {
      return Promise.reject(this.#error("closed", "the client is closed"));
    }
    if (this.#session) {
      return this.#perform(this.#tab, op, args).then(({ reply, joined }) => {
        if (joined) this.#catchUp(args[0], args[1]);
        return reply;
      });
    }
    if (!this.#leaderKnown) {
      if (op === "call" && args[0].ephemeral) {
        return Promise.resolve({ durability: "none", connections: 0 });
      }
      if (this.#pending.size >= this.#settings.queue) {
        return Promise.reject(this.#error("queue_full", "too many requests wait for a connection"));
      }
    }
    return new Promise((resolve, reject) => {
      const pending = { op, args, resolve, reject, sent: false };
      this.#pending.set(++this.#calls, pending);
      if (this.#leaderKnown) this.#ask(this.#calls, pending);
    });
  }

  #post(message: any): void {
    this.#channel?.postMessage(message);
  }

  #heard(data: any): void {
    if (this.#session) {
      if (data.hello) this.#meet(data.hello);
      else if (data.op) this.#answer(data);
      else if (data.ack) this.#hooks.acked?.(data.ack);
    } else if (data.message) this.#pass(data.message);
    else if (data.begun) this.#begun(data.begun, data.place);
    else if (data.state) {
      this.#hooks.state(
        data.error ? { ...data.state, error: this.#revived(data.error) } : data.state,
      );
      if (!this.#leaderKnown || data.fresh) this.#follow();
    } else if (data.to === this.#tab) this.#answered(data);
  }

  // --- following ---------------------------------------------------------------------------------

  /** There is a leader, perhaps another than before. */
  #follow(): void {
    if (this.#leaderKnown) {
      for (const [number, { op, args, sent, reject }] of [...this.#pending]) {
        if (!sent || !published(op, args)) continue;
        this.#pending.delete(number);
        reject(this.#gone());
      }
    }
    this.#leaderKnown = true;
    this.#post({ hello: this.#tab });
    const asked = new Set<string>();
    for (const [number, pending] of this.#pending) {
      if (pending.op === "subscribe") asked.add(pending.args[0]);
      this.#ask(number, pending);
    }
    for (const [topic, { since }] of this.#topics) {
      if (asked.has(topic)) continue;
      this.#do("subscribe", [topic, since]).catch(this.#hooks.error);
    }
  }

  #ask(number: number, pending: Pending): void {
    pending.sent = true;
    try {
      this.#post({ from: this.#tab, number, op: pending.op, args: pending.args });
    } catch (error) {
      this.#pending.delete(number);
      pending.reject(error as Error); // what cannot be copied
    }
  }

  #answered({ number, reply, error, joined }: any): void {
    const pending = this.#pending.get(number);
    if (!pending) return;
    this.#pending.delete(number);
    if (error) pending.reject(this.#revived(error));
    else pending.resolve(reply);
    if (joined && !error) this.#catchUp(pending.args[0], pending.args[1]);
  }

  /** Hands on what the leader passed. */
  #pass(message: ServerMessage): void {
    const held = message.topic === undefined ? undefined : this.#held.get(message.topic);
    if (!held) this.#take(message);
    else if (held.push(message) > MOST_HELD) held.shift();
  }

  /** Notes the place in the topic: should this tab lead one day, it goes on from there. */
  #take(message: ServerMessage): void {
    const { type, topic = "", id, reason } = message;
    const place = this.#topics.get(topic);
    if (type === "gap" && reason === "reset") place?.reset();
    else if (id) place?.came(id);
    this.#hooks.message(message);
  }

  /** What was kept of a topic has come, up to a place; or comes to this tab by other ways. */
  #begun(topic: string, place: string): void {
    if (this.#held.has(topic)) return;
    const known = this.#topics.get(topic);
    known?.answered(place);
    known?.begun();
  }

  /** Gets what a topic had before this tab came, which the leader was sent long ago. */
  async #catchUp(topic: string, since: string | undefined): Promise<void> {
    if (this.#held.has(topic)) return;
    const held: ServerMessage[] = [];
    this.#held.set(topic, held);
    let at = since;
    while (this.#topics.has(topic) && !this.#end.signal.aborted) {
      let pause = 0;
      try {
        const token = await this.#tokens.get();
        const topics = new Map([[topic, at]]);
        const target = { ...this.#settings, token, topics };
        const { http } = await this.#fallback();
        const { messages, position } = await http.poll(target);
        const mine = messages.filter((each) => each.topic === topic);
        for (const message of mine) this.#take(message);
        at = placeIn(position, topic);
        if (!mine.length) break;
      } catch (error) {
        pause = ((error as PushError).retryAfter ?? 1) * 1000;
      }
      await sleep(pause);
    }
    this.#held.delete(topic);
    if (at) this.#begun(topic, at);
    for (const message of held) this.#take(message);
  }

  // --- leading -----------------------------------------------------------------------------------

  #lead(): void {
    const session = this.#make({
      message: (message) => {
        this.#pass(message);
        this.#post({ message });
      },
      state: (state) => {
        this.#state = state;
        this.#hooks.state(state);
        // Refused for good: another tab may have a better token.
        if (state.status === "closed") this.#shut();
        else this.#tell();
      },
      error: this.#hooks.error,
      begun: (begun, place) => {
        this.#begun(begun, place);
        this.#post({ begun, place });
      },
    });
    this.#session = session;
    const pending = [...this.#pending.values()];
    this.#pending.clear();
    for (const { op, args, sent, resolve, reject } of pending) {
      if (sent && published(op, args)) reject(this.#gone());
      else this.#perform(this.#tab, op, args).then(({ reply }) => resolve(reply), reject);
    }
    for (const [topic, { since }] of this.#topics) {
      if (session.has(topic)) continue;
      session.subscribe(topic, since).catch(this.#hooks.error);
    }
    session.start();
    this.#tell(true);
  }

  /** Tells the other tabs how the connection is; `fresh` from a leader that is new. */
  #tell(fresh = false): void {
    const { error, ...state } = this.#state;
    this.#post({ state, fresh, error: error && plain(error) });
  }

  /** Another tab is there. */
  #meet(tab: string): void {
    if (this.#wanted.has(tab)) return;
    this.#wanted.set(tab, new Set());
    this.#tell();
    this.#hold(`${this.#key} ${tab}`, () => {
      const topics = this.#wanted.get(tab) ?? [];
      this.#wanted.delete(tab);
      for (const topic of topics) this.#unwanted(topic);
      return true;
    });
  }

  async #unwanted(topic: string): Promise<void> {
    if (this.#topics.has(topic)) return;
    for (const topics of this.#wanted.values()) if (topics.has(topic)) return;
    await this.#session?.unsubscribe(topic);
  }

  /** Does what a tab asks for; `joined` where the topic had been subscribed to before. */
  async #perform(tab: string, op: Operation, args: any[]): Promise<Performed> {
    const session = this.#session as Session;
    const [first, since] = args;
    if (op === "call") return { reply: await session.call(first) };
    const wanted = this.#wanted.get(tab);
    if (op === "unsubscribe") {
      wanted?.delete(first);
      return { reply: await this.#unwanted(first) };
    }
    const joined = session.has(first);
    wanted?.add(first);
    return { reply: await session.subscribe(first, since), joined };
  }

  async #answer({ from, number, op, args }: Asked): Promise<void> {
    try {
      this.#post({ to: from, number, ...(await this.#perform(from, op, args)) });
    } catch (error) {
      this.#post({ to: from, number, error: plain(error as PushError) });
    }
  }

  // --- errors ------------------------------------------------------------------------------------

  #error(code: string, message: string): PushError {
    return new this.#PushError(code, message);
  }

  #gone(): PushError {
    return this.#error("unknown", "the tab with the connection was closed: it may have been done");
  }

  #revived({ code, message, status, retryAfter, topic }: any): PushError {
    return Object.assign(new this.#PushError(code, message, status, retryAfter), { topic });
  }
}

interface Performed {
  reply: Reply;
  joined?: boolean;
}

interface Asked {
  from: string;
  number: number;
  op: Operation;
  args: any[];
}

function published(op: Operation, [first]: any[]): boolean {
  return op === "call" && first.type === "publish";
}

/** An error as it is sent between tabs: of a copied one only the message would be left. */
function plain({ code, message, retryAfter, status, topic }: PushError) {
  return { code, message, retryAfter, status, topic };
}
