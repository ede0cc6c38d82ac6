import type { PushError } from "./errors.js";
import { compare } from "./ids.js";
import type { InboxItem, InboxQuery, InboxSnapshot, ServerMessage, State } from "./types.js";

/** What to ask the server for: the list, or how many are unread. */
export type Ask = "list" | "count" | undefined;

export type Mark = "read" | "unread" | "archive" | "unarchive";

/** A change of notifications: by ids, or of all up to one. */
export interface Change {
  readonly type: Mark;
  readonly ids?: readonly string[];
  readonly until?: string;
}

/** A part of the user's mailbox, as the server lists it. */
export interface Listed {
  readonly notifications: readonly any[];
  readonly unread?: number;
  readonly next: string | null;
}

/** What a change makes of a notification: the same object where it makes nothing else of it. */
function changed(item: InboxItem, type: Mark): InboxItem {
  const archived = type === "archive" || (item.archived && type === "read");
  const read = type !== "unread" && (item.read || type !== "unarchive");
  return item.read === read && item.archived === archived ? item : { ...item, read, archived };
}

/** Which ids a change is of. */
function covers({ ids, until }: Change): (id: string) => boolean {
  if (until !== undefined) return (id) => compare(id, until) <= 0;
  const named = new Set(ids);
  return (id) => named.has(id);
}

/** Notifications of the mailbox that are known, and how many of all are unread. */
interface Known {
  readonly items: readonly InboxItem[];
  readonly unread: number;
  /**
   * The same as it follows from what was told since the last list: where it is another, something
   * has gone that nobody told.
   */
  readonly derived: number;
}

/** What an item has of a message. */
const KEPT = ["id", "time", "expires", "event", "data", "encoding", "from"];

/** As one that is kept: what came live has other members, too, and a ttl instead of its end. */
function itemOf(message: any): InboxItem {
  const { time, ttl, read, archived } = message;
  const item: any = { read: !!read, archived: !!archived };
  for (const name of KEPT) if (message[name] !== undefined) item[name] = message[name];
  if (ttl) item.expires = new Date(Date.parse(time) + ttl * 1000).toISOString();
  return item;
}

/** When a notification ends: milliseconds since the epoch, NaN for never. */
const endOf = ({ expires = "" }: InboxItem) => Date.parse(expires);

const unreadOf = (items: readonly InboxItem[]) => items.filter(({ read }) => !read).length;

/**
 * What an inbox knows: the notifications as the server told them last, and on top of that what this
 * client has changed and has no answer for. Knows no time and no I/O: it says what to ask for.
 */
export class InboxModel {
  readonly #event: string | undefined;
  readonly #archived: boolean;
  /** How many notifications a page has, and how many were asked for. */
  readonly #page: number;
  #most = 0;
  #known: Known = { items: [], unread: 0, derived: 0 };
  /** The newest id of the mailbox that was seen, and the same when the last list was asked for. */
  #newest = "";
  #since = "";
  /** From where the next page goes on; undefined before the first, null at the end. */
  #next: string | null | undefined;
  /** What this client has changed, and not been answered. */
  readonly #pending = new Set<Change>();
  /** What was told while a list is on its way: that may be older than this. */
  #meanwhile: ServerMessage[] | undefined;
  /** Counts what came from elsewhere, so that a count which is older is known. */
  #turns = 0;
  /** Whether a notification came that may have replaced another, and no count since. */
  #unsure = false;
  /** When it was looked last for what ends. */
  #clock = 0;
  #online = true;
  /** Whether the client has ended. */
  #ended = false;
  /** Why there is no connection, and why no list. */
  #lost: PushError | undefined;
  #refused: PushError | undefined;
  #snapshot: InboxSnapshot;

  /** `snapshot` is what is shown before anything is known. */
  constructor({ event, archived, pageSize = 20 }: InboxQuery, snapshot: InboxSnapshot) {
    this.#page = pageSize;
    this.#event = event;
    this.#archived = !!archived;
    this.#snapshot = snapshot;
  }

  /** What to show: the same object until something of it changes, and so is each item. */
  get snapshot(): InboxSnapshot {
    const before = this.#snapshot;
    const { items, unread } = this.#shown();
    const same = new Map(before.items.map((item) => [item.id, item]));
    const shown = items
      .filter((item) => item.archived === this.#archived)
      .map((item) => {
        const old = same.get(item.id);
        return old?.read === item.read && old.time === item.time ? old : item;
      });
    const equal =
      shown.length === before.items.length && shown.every((item, i) => item === before.items[i]);
    const error = this.#online ? this.#refused : this.#lost;
    const state = this.#state;
    const more = !!this.#next;
    if (
      !equal ||
      unread !== before.unread ||
      state !== before.state ||
      more !== before.more ||
      error !== before.error
    ) {
      this.#snapshot = Object.freeze({
        items: equal ? before.items : Object.freeze(shown),
        unread,
        state,
        more,
        ...(error && { error }),
      });
    }
    return this.#snapshot;
  }

  get #state(): InboxSnapshot["state"] {
    if (this.#ended) return "error";
    if (!this.#online) return "offline";
    if (this.#refused) return "error";
    return this.#next === undefined ? "loading" : "ready";
  }

  /** From where the next page goes on; undefined before the first, null at the end. */
  get next(): string | null | undefined {
    return this.#next;
  }

  /** How many are known: as many are listed again. */
  get size(): number {
    return this.#known.items.length;
  }

  /** Changes with each notification and each change from elsewhere. */
  get turns(): number {
    return this.#turns;
  }

  /** When the first of what is known ends that has not by now: milliseconds since the epoch. */
  expiry(now: number): number {
    return Math.min(...this.#known.items.map(endOf).filter((time) => time > now));
  }

  /**
   * Takes out what has ended since the last time, and says what tells whether it has for the
   * server. What had ended before that has it still: the clock of this client is ahead.
   */
  expire(now: number): Ask {
    const over = this.#known.items.filter((item) => endOf(item) <= now);
    const ended = over.filter((item) => endOf(item) > this.#clock);
    this.#clock = now;
    if (ended.length) this.#drop((item) => ended.includes(item));
    return ended.length < over.length ? "list" : ended.length ? "count" : undefined;
  }

  /** How the connection is. */
  connection({ status, error }: State): void {
    this.#ended = status === "closed";
    // What was lost is lost until it is back.
    this.#online = status === "connected" || (status === "connecting" && this.#online);
    this.#lost = this.#online ? undefined : error;
  }

  /** A message of the server, or what was changed by others with the same connection. */
  heard(message: ServerMessage): Ask {
    const { type, topic, broadcast, id, unread } = message;
    if (topic !== undefined || broadcast) return undefined;
    switch (type) {
      case "welcome":
        this.#known = { ...this.#known, unread: unread ?? this.#known.unread };
        return "list"; // of which the count is another
      case "gap":
        this.#turns++;
        this.#meanwhile?.push(message);
        if (message.reason === "reset") this.#forget(unread);
        return "list";
      case "notification":
        return id === undefined || message.inbox === false ? undefined : this.#note(message);
      case "withdrawn":
        return this.#note(message);
      case "read":
      case "unread":
      case "archive":
      case "unarchive":
        // A count, which others with the same connection asked for, or a poll brought.
        if (message.ids?.length === 0) return unread === this.#known.derived ? undefined : "count";
        return this.#note(message);
      default:
        return undefined;
    }
  }

  /** A count came that was asked for after that many turns. */
  counted(unread: number, turns: number): Ask {
    const { items, derived } = this.#known;
    // What came meanwhile may be counted in it, or not.
    if (unread !== derived && turns !== this.#turns) return "count";
    this.#known = { items, unread, derived: unread };
    if (turns === this.#turns) this.#unsure = false;
    return unread === derived ? undefined : "list";
  }

  /** A list is asked for. */
  listing(): void {
    this.#meanwhile = [];
    this.#since = this.#newest;
  }

  /** A list came: the newest ones or, behind what was the end, older ones. */
  listed({ notifications, unread, next }: Listed, older = false): Ask {
    const listed = notifications.map(itemOf);
    const meanwhile = this.#meanwhile ?? [];
    const known = this.#known;
    const count = unread ?? known.unread;
    if (older) {
      const last = known.items.at(-1)?.id;
      const behind = listed.filter(({ id }) => last === undefined || compare(id, last) < 0);
      // The count of what was known is left: only what follows from it shows what has gone since.
      this.#known = { ...known, items: [...known.items, ...behind] };
    } else {
      const newest = listed[0]?.id ?? "";
      this.#known = { items: listed, unread: count, derived: count };
      this.#unsure = false;
      this.#newest = compare(newest, this.#since) > 0 ? newest : this.#since;
    }
    this.#most = Math.max(this.#page, this.size);
    this.#next = next;
    this.#meanwhile = this.#refused = undefined;
    for (const message of meanwhile) this.#take(message);
    return meanwhile.length || count !== this.#known.derived ? "count" : undefined;
  }

  /** A list could not be got. */
  failed(error: PushError): void {
    this.#meanwhile = undefined;
    this.#refused = error;
  }

  /** This client changes something. It counts as done until it is told to `end`. */
  begin(change: Change): void {
    this.#pending.add(change);
  }

  /** It was answered: what was done was heard before. */
  end(change: Change): void {
    this.#pending.delete(change);
  }

  #forget(unread = 0): void {
    this.#known = { items: [], unread, derived: unread };
    this.#newest = "";
    this.#next = undefined;
  }

  /** Takes what changes the mailbox, again once a list came that may be older. */
  #note(message: ServerMessage): Ask {
    this.#meanwhile?.push(message);
    return this.#take(message);
  }

  #take(message: ServerMessage): Ask {
    const { type, id, unread, answered } = message;
    if (type === "notification") return this.#arrived(message);
    if (type === "withdrawn") {
      this.#drop((item) => item.id === id);
      return "count";
    }
    if (type === "gap") {
      if (message.reason === "reset") this.#forget(unread);
      return "list";
    }
    const change = message as unknown as Change;
    this.#turns++;
    const known = this.#apply(this.#known, change);
    // What is marked while it may be gone is not missed by the count any more.
    const sure = this.#knows(change) && !this.#unsure;
    this.#known = { ...known, unread: unread ?? known.unread };
    if (!sure) return "list";
    if (answered) return this.#known.unread === known.derived ? undefined : "count";
    // Which of two changes at a time was the later one, only the list can tell.
    return this.#pending.size ? "list" : "count";
  }

  #arrived(message: ServerMessage): Ask {
    const id = message.id as string;
    if (compare(id, this.#newest) <= 0) return undefined; // it comes again
    this.#newest = id;
    this.#turns++;
    this.#unsure = true;
    const { items } = this.#known;
    const item = itemOf(message);
    const wanted = this.#event === undefined || item.event === this.#event;
    this.#count(wanted ? [item, ...items] : items, Number(!item.read));
    this.#cut();
    return "count";
  }

  /** Forgets what is behind the pages that were asked for: what comes would add up. */
  #cut(): void {
    const { items } = this.#known;
    // A page that is on its way is to go on from what is the last one now.
    if (items.length <= this.#most || this.#meanwhile) return;
    const all = items.filter(({ archived }) => archived === this.#archived);
    const kept = all.slice(0, this.#most);
    if (kept.length < all.length) this.#next = kept.at(-1)?.id;
    this.#known = { ...this.#known, items: kept };
  }

  #drop(gone: (item: InboxItem) => boolean): void {
    const { items } = this.#known;
    const left = items.filter((item) => !gone(item));
    this.#turns++;
    this.#count(left, unreadOf(left) - unreadOf(items));
  }

  #count(items: readonly InboxItem[], more: number): void {
    const { unread, derived } = this.#known;
    this.#known = { items, unread: Math.max(0, unread + more), derived: derived + more };
  }

  /** Whether what a change makes of the list and the count can be told from what is known. */
  #knows({ ids, until }: Change): boolean {
    if (this.#all(until)) return true;
    return !!ids?.every((id) => this.#known.items.some((item) => item.id === id));
  }

  /** Whether all that is newer than an id is known. */
  #all(until: string | undefined): boolean {
    const last = this.#known.items.at(-1)?.id;
    return (
      until !== undefined &&
      last !== undefined &&
      this.#event === undefined &&
      !this.#archived &&
      compare(until, last) >= 0
    );
  }

  /** What is known once a change is carried out. */
  #apply({ items, unread, derived }: Known, change: Change): Known {
    const covered = covers(change);
    let delta = 0;
    const after = items.map((item) => {
      if (!covered(item.id)) return item;
      const other = changed(item, change.type);
      delta += Number(item.read) - Number(other.read);
      return other;
    });
    if (this.#all(change.until)) {
      // Nothing up to there is unread.
      const left = unreadOf(after);
      return { items: after, unread: left, derived: left };
    }
    return { items: after, unread: Math.max(0, unread + delta), derived: derived + delta };
  }

  #shown(): Known {
    let known = this.#known;
    for (const change of this.#pending) known = this.#apply(known, change);
    return known;
  }
}
