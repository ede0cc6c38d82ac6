import { fallsBack, jitter, judge, sleep } from "./backoff.js";
import { calls } from "./calls.js";
import { PushError, told } from "./errors.js";
import { valid } from "./ids.js";
import { Place } from "./place.js";
import type { Settings } from "./settings.js";
import type { Tokens } from "./tokens.js";
import type { Link } from "./transports/link.js";
import { fallback, loaded } from "./transports/loaded.js";
import { websocket } from "./transports/websocket.js";
import type { Hooks, Reply, ServerMessage, Source, State, TransportName } from "./types.js";

/** Most topics of a stream or a poll. */
const MAX_TOPICS = 32;
const HOUR = 3_600_000;
/** Changes of the mailbox: the server tells them to the user's other connections. */
const MARK = /^(un)?(read|archive)$/;
/** Failures before a client asks why that was connected before: a node that died is not asked. */
const PATIENT = 5;
/** A power of two: it asks at the failures 1, 2, 4, 8 and so on, and after so many anew. */
const RENEW = 64;

interface Deferred<T> {
  resolve(value: T): void;
  reject(error: Error): void;
}

interface Topic {
  readonly place: Place;
  /** Who subscribed to it and has no answer. */
  waiting: Deferred<{ last: string | null }>[];
}

/** A link, or the attempt to get one. */
interface Slot {
  readonly kind: number;
  link: Link;
  /** When `welcome` came; 0 before. */
  up: number;
  /** When something last came. */
  last: number;
  /** When a sign of life was asked for. */
  asked: number;
  timer: ReturnType<typeof setTimeout> | undefined;
  over: boolean;
  /** The topics that it was opened with. */
  readonly topics: string;
  end(error: PushError): void;
}

/** The connection of one client or, where tabs share it, of several. */
export interface Session extends Source {
  /** Whether a topic is subscribed to, or will be. */
  has(topic: string): boolean;
}

/** A connection that is kept: opened, watched, opened again, with its topics and requests. */
export function session(settings: Settings, tokens: Tokens, hooks: Hooks): Session {
  const topics = new Map<string, Topic>();
  const requests = calls(() => ready()?.link, settings.queue);
  let current: Slot | undefined;
  /** The attempt to get a better link than the one there is. */
  let candidate: Slot | undefined;
  let retryTimer: ReturnType<typeof setTimeout> | undefined;
  let climbTimer: ReturnType<typeof setTimeout> | undefined;
  let climbs = 0;
  /** Which transport an attempt begins with. */
  let firstKind = 0;
  let failures = 0;
  /** Whether a socket was ever open, and how many could not be opened since. */
  let worked = false;
  /** Whether there ever was a connection. */
  let met = false;
  let missed = 0;
  /** When the server wants to see us again at the earliest. */
  let earliest = 0;
  let lastError: PushError | undefined;
  /** What found that out, as a page has to, or is busy with it. */
  let probe: { busy: boolean } | undefined;
  /** What was told last. */
  let shown: State;
  /** Counts attempts, so that a token that comes late is not used twice. */
  let attempts = 0;
  let paused = false;
  let closed = false;
  const ending = new AbortController();

  function start(): void {
    for (const type of ["online", "offline", "visibilitychange"]) {
      globalThis.addEventListener?.(type, noticed, { signal: ending.signal });
    }
    attempt();
  }

  function close(error?: PushError): void {
    if (closed) return;
    closed = true;
    ending.abort();
    drop();
    probe = undefined;
    const reason = error ?? new PushError("closed", "the client was closed");
    requests.close(reason);
    for (const { waiting } of topics.values()) {
      for (const { reject } of waiting.splice(0)) reject(reason);
    }
    lastError = error;
    tell({ status: "closed" });
  }

  function pause(): boolean {
    paused = true;
    drop();
    tell({ status: "waiting" });
    return true;
  }

  function resume(): void {
    paused = false;
    schedule(0);
  }

  // --- attempts ----------------------------------------------------------------------------------

  async function attempt(): Promise<void> {
    clearTimeout(retryTimer);
    if (closed || paused || current) return;
    const turn = ++attempts;
    tell({ status: "connecting" });
    try {
      const token = await tokens.get();
      if (turn === attempts) open(firstKind, token);
    } catch (error) {
      hooks.error(error as Error);
      if (turn === attempts) retry(new PushError("token", `no token: ${error}`));
    }
  }

  function open(kind: number, token: string, better = false): void {
    const { timing, transports } = settings;
    const slot: Slot = {
      kind,
      up: 0,
      last: Date.now(),
      asked: 0,
      over: false,
      topics: `${[...topics.keys()]}`,
      timer: setTimeout(() => slot.end(new PushError("unusable", "no welcome came")), timing.open),
      end: (error) => {
        if (slot.over) return;
        letGo(slot);
        ended(slot, error, token);
      },
    } as Slot;
    if (better) candidate = slot;
    else current = slot;
    const places = new Map([...topics].map(([name, { place }]) => [name, place.since]));
    const opener = sends(slot) ? websocket : loaded(transports[kind] as "sse" | "poll");
    slot.link = opener(
      { ...settings, token, topics: places, tokens },
      {
        message: (message) => slot.over || receive(slot, message),
        traffic: () => {
          slot.last = Date.now();
        },
        subscribed: (place) => {
          if (slot.over) return;
          for (const name of places.keys()) {
            subscribed(name, place(name));
            begun(name);
          }
        },
        refused: (name, error) => closed || refuse(name, error),
        end: slot.end,
      },
    );
  }

  /** The next transport that may be tried after one, undefined without any. */
  function nextKind(kind: number): number | undefined {
    const { transports } = settings;
    return kind + 1 < transports.length && topics.size <= MAX_TOPICS ? kind + 1 : undefined;
  }

  function ended(slot: Slot, error: PushError, token: string): void {
    const { kind } = slot;
    const next = nextKind(kind);
    if (slot === candidate) {
      candidate = undefined;
      if (next !== undefined && next < (current?.kind ?? 0)) open(next, token, true);
      else climb();
      return;
    }
    current = undefined;
    if (
      !slot.up &&
      next !== undefined &&
      (error.code === "unusable" || (mute(slot, error) && fallsBack(worked, ++missed)))
    ) {
      open(next, token);
      return;
    }
    drop();
    if (!slot.up) firstKind = 0;
    else if (Date.now() - slot.up >= settings.timing.uptime) failures = 0;
    later(error.retryAfter);
    const verdict = judge(error);
    if (verdict === "renew") tokens.renew();
    if (verdict === "stop" || (verdict === "refused" && !tokens.refused(error.retryAfter))) {
      close(error);
    } else retry(error, slot.up);
  }

  /** Whether a socket did not say why it could not be opened; a fetch will. */
  function mute(slot: Slot, error: PushError): boolean {
    return sends(slot) && !(Number(error.code) >= 4000);
  }

  /**
   * Makes an attempt after a while. A page to which no reason is told finds it out meanwhile, more
   * and more rarely, and until then tells what it knew.
   *
   * @param up when what ended was a connection
   */
  function retry(error: PushError, up = 0): void {
    const turn = (failures + 1) % RENEW;
    if (
      up ||
      (met && failures < PATIENT) ||
      !globalThis.location ||
      !/^(lost|unusable|1006)$/.test(error.code)
    ) {
      probe = undefined;
    } else if (!probe?.busy && !(turn & (turn - 1))) {
      const mine: typeof probe = (probe = { busy: true });
      fallback()
        .then((part) => part.diagnose(settings, error, met, () => probe !== mine))
        .catch(() => error)
        .then((why) => {
          if (probe !== mine) return;
          mine.busy = false;
          lastError = why;
          tell();
        });
    }
    if (!probe) lastError = error;
    const { first, max } = settings.timing;
    schedule(jitter(failures++, first, max, Math.random()));
  }

  /** Makes an attempt, so long after the server wants to see us. */
  function schedule(pause: number): void {
    clearTimeout(retryTimer);
    if (closed || paused) return;
    const ms = Math.max(0, earliest - Date.now()) + pause;
    const retryAt = Date.now() + ms;
    tell({ status: "waiting", retryAt });
    retryTimer = setTimeout(() => attempt(), ms);
  }

  function later(seconds = 0): void {
    earliest = Math.max(earliest, Date.now() + seconds * 1000);
  }

  function letGo(slot: Slot | undefined): void {
    if (!slot) return;
    slot.over = true;
    clearTimeout(slot.timer);
    slot.link?.close();
  }

  /** Lets go of every link. */
  function drop(): void {
    attempts++;
    clearTimeout(retryTimer);
    clearTimeout(climbTimer);
    letGo(current);
    letGo(candidate);
    current = candidate = undefined;
  }

  // --- the link there is -------------------------------------------------------------------------

  function ready(): Slot | undefined {
    return current?.up ? current : undefined;
  }

  function receive(slot: Slot, message: ServerMessage): void {
    slot.last = Date.now();
    const { type, topic, id } = message;
    if (id !== undefined && !valid(id)) return;
    if (type === "welcome") welcome(slot, message);
    else if (type === "reconnect") later(message.retry_after);
    else if (type === "closed") slot.end(new PushError(String(message.code), message.reason));
    else if (type === "error") {
      later(message.retry_after);
      if (message.code === "token_expiring") refresh();
      else hooks.error(told(message));
    } else if (type !== "pong" && type !== "reply") {
      const known = topic === undefined ? undefined : topics.get(topic);
      if (type === "gap" && message.reason === "reset") known?.place.reset();
      else if (id) known?.place.came(id);
      hooks.message(message);
    }
  }

  function welcome(slot: Slot, message: ServerMessage): void {
    const { transports, timing } = settings;
    if (slot === candidate) {
      candidate = undefined;
      letGo(current);
      current = slot;
      climbs = 0;
    }
    clearTimeout(slot.timer);
    slot.up = Date.now();
    firstKind = slot.kind;
    lastError = probe = undefined;
    met = true;
    tokens.accepted(message.expires_at);
    const { connection, user, device } = message;
    const transport = transports[slot.kind] as TransportName;
    tell({ status: "connected", transport, device, connection, user });
    hooks.message(message);
    if (!sends(slot)) {
      if (`${[...topics.keys()]}` !== slot.topics) reopen();
    } else {
      worked = true;
      missed = 0;
      if (topics.size) ask([...topics.keys()]);
    }
    requests.flush(0);
    if (message.heartbeat) watch(slot, message.heartbeat * 2000 + timing.pong / 2);
    if (slot.kind > 0) climb();
  }

  /**
   * Ends a link on which nothing comes any more. Browsers do not show the server's signs of life
   * on a socket, so one is asked for; and hold timers back, so what counts is not their number.
   */
  function watch(slot: Slot, quiet: number): void {
    const { pong } = settings.timing;
    slot.timer = setInterval(() => {
      const asked = slot.asked > slot.last;
      if (Date.now() - Math.max(slot.asked, slot.last) < (asked ? pong : quiet)) return;
      if (asked || !sends(slot)) slot.end(new PushError("lost", "nothing came"));
      else ping(slot);
    }, pong / 2);
  }

  /** Asks for a sign of life, where one can. */
  function ping(slot: Slot): void {
    if (!sends(slot) || slot.asked > slot.last) return;
    slot.asked = Date.now();
    slot.link.request({ type: "ping" }).catch(() => {});
  }

  /** What the browser tells: whether there is a network, and whether the page is looked at. */
  function noticed({ type }: Event): void {
    if (type === "offline") offline();
    else wake(type);
  }

  function wake(why: string): void {
    if (typeof document !== "undefined" && document.visibilityState === "hidden") return;
    const slot = ready();
    if (slot) ping(slot);
    else if (!current && !paused && !closed) {
      // A network comes back for a whole office; a page is looked at by one.
      const { first, max } = settings.timing;
      schedule(why === "online" ? jitter(0, first, max, Math.random()) : 0);
    }
  }

  function offline(): void {
    letGo(candidate);
    candidate = undefined;
    if (!current) return;
    drop();
    failures = Math.max(failures, 5);
    retry(new PushError("offline", "the browser is offline"));
  }

  /** Tries a better transport after a while. */
  function climb(): void {
    clearTimeout(climbTimer);
    const dice = 0.75 + Math.random() / 2; // those who fell back together come one by one
    const pause = jitter(climbs++, settings.timing.upgrade, HOUR, dice);
    climbTimer = setTimeout(async () => {
      const token = await tokens.get().catch(() => undefined);
      if (token && ready() && !candidate && !closed) open(0, token, true);
    }, pause);
  }

  /** Opens the link again, for what it was opened with has changed. */
  async function reopen(): Promise<void> {
    const slot = ready();
    if (!slot || closed) return;
    const token = await tokens.get();
    if (slot !== current || slot.over) return;
    letGo(slot);
    open(slot.kind, token);
  }

  async function refresh(): Promise<void> {
    if (tokens.fixed) return;
    try {
      tokens.renew();
      const token = await tokens.get();
      const slot = ready();
      if (!slot) return;
      if (!sends(slot)) await reopen();
      else {
        const { expires_at } = await slot.link.request({ type: "refresh", token });
        tokens.accepted(expires_at);
      }
    } catch (error) {
      hooks.error(error as Error);
    }
  }

  /** Whether messages are sent on the link itself. */
  function sends(slot: Slot): boolean {
    return settings.transports[slot.kind] === "websocket";
  }

  function tell(state = shown): void {
    shown = state;
    const { device } = settings;
    hooks.state({ device, ...state, error: lastError });
  }

  // --- acknowledgements --------------------------------------------------------------------------

  function ack(message: ServerMessage): void {
    ready()?.link.ack(message);
  }

  function failed(): void {
    ready()?.link.failed?.();
  }

  // --- topics ------------------------------------------------------------------------------------

  /** Whether a topic is subscribed to, or will be. */
  function has(topic: string): boolean {
    return topics.has(topic);
  }

  function subscribe(topic: string, since: string | undefined): Promise<{ last: string | null }> {
    const known = topics.get(topic);
    const last = known?.place.last;
    if (last) return Promise.resolve({ last: known.place.since ?? last });
    const slot = ready();
    if (!known && slot && !sends(slot) && topics.size >= MAX_TOPICS) {
      const message = `at most ${MAX_TOPICS} without a WebSocket`;
      return Promise.reject(new PushError("too_many_topics", message));
    }
    const it = known ?? { place: new Place(since), waiting: [] };
    topics.set(topic, it);
    const answer = new Promise<{ last: string | null }>((resolve, reject) => {
      it.waiting.push({ resolve, reject });
    });
    if (!known && slot) {
      if (sends(slot)) ask([topic]);
      else reopen();
    }
    return answer;
  }

  async function unsubscribe(topic: string): Promise<void> {
    const slot = ready();
    if (!topics.delete(topic) || !slot) return;
    if (sends(slot)) await slot.link.request({ type: "unsubscribe", topic });
    else await reopen();
  }

  /** Subscribes by a message; together first, and by halves if that is refused. */
  async function ask(wanted: string[], slot = ready()): Promise<void> {
    const names = wanted.filter(has);
    // The next link asks for all of them.
    if (!slot || slot !== current || !names.length) return;
    const asked = Object.fromEntries(
      names.map((name) => [name, topics.get(name)?.place.since ?? null]),
    );
    try {
      const reply = await slot.link.request({ type: "subscribe", topics: asked });
      const open = names.filter((name) => subscribed(name, reply.topics[name]));
      if (!open.length) return;
      slot.link.request({ type: "ping" }).then(
        () => {
          for (const name of open) begun(name);
        },
        () => {}, // the next link finds it out
      );
    } catch (e) {
      const error = e as PushError;
      const { retryAfter = 0 } = error;
      const half = names.length >> 1;
      if (retryAfter || error.code === "unknown") {
        await sleep(retryAfter * 1000);
        await ask(names, slot);
      } else if (!half) refuse(names[0] as string, error);
      else for (const part of [names.slice(0, half), names.slice(half)]) await ask(part, slot);
    }
  }

  /** A topic is subscribed to; returns whether a state may be on its way. */
  function subscribed(name: string, last: string): boolean {
    const topic = topics.get(name);
    if (!topic) return false;
    for (const { resolve } of topic.waiting.splice(0)) resolve({ last });
    return topic.place.answered(last);
  }

  /** The state of a topic has come. */
  function begun(name: string): void {
    const place = topics.get(name)?.place;
    place?.begun();
    if (place?.since) hooks.begun?.(name, place.since);
  }

  function refuse(topic: string, error: PushError): void {
    const waiting = topics.get(topic)?.waiting;
    if (!waiting) return;
    topics.delete(topic);
    Object.assign(error, { topic, message: `${topic}: ${error.message}` });
    if (!waiting.length) hooks.error(error);
    for (const { reject } of waiting) reject(error);
  }

  /** Sends a request, and tells a change of the mailbox to all who have this connection. */
  async function call(message: ServerMessage): Promise<Reply> {
    const reply = await requests.call(message);
    if (MARK.test(message.type)) hooks.message({ ...message, ...reply, answered: true });
    return reply;
  }

  return { start, close, pause, resume, ack, failed, has, subscribe, unsubscribe, call };
}
