import { type Ask, type Change, InboxModel, type Listed, type Mark } from "./inbox.js";
import type {
  Inbox,
  InboxQuery,
  InboxSnapshot,
  Reply,
  ServerMessage,
  State,
  Which,
} from "./types.js";

/** Most notifications of one request; most ids of one message. */
const MOST_LISTED = 100;
const MOST_IDS = 1000;
/** Milliseconds in which what comes gathers at most, before the server is asked once for all. */
const GATHER = 100;
/** Milliseconds between two such questions at least, once there were so many in a row. */
const PAUSE = 1000;
const BURST = 4;
/** Most milliseconds before a list that could not be got is asked for again. */
const RETRY = 30_000;
/** Milliseconds until it is asked whether what has ended is gone, and again where it was not. */
const SETTLE = 5000;
const AHEAD = 60_000;
/** Most milliseconds of a timer. */
const LONG = 2e9;

/** What an inbox needs of its client. */
export interface Host {
  /** Sends a message, now or when there is a connection. */
  call(message: ServerMessage): Promise<Reply>;
  /** A page of the mailbox. */
  list(query: object): Promise<Listed>;
  state(): State;
  /**
   * Calls a function with each message, and without one when the state has changed.
   *
   * @returns a function that ends that
   */
  watch(told: (message?: ServerMessage) => void): () => void;
  /** Takes notifications as handled, which are shown, until what it returns is called. */
  take(): () => void;
}

/** A query, with how many notifications a page has. */
export type Asked = InboxQuery & { readonly pageSize: number };

/** What an inbox does; what it shows is kept by who loads this. */
export interface Store extends Omit<Inbox, "snapshot" | "subscribe"> {
  /**
   * Whether somebody looks, as somebody began to or everybody ended it: only then the server is
   * asked without being told to.
   */
  watched(on: boolean): void;
}

/** An inbox; a part of its own, as not every page has one. */
export function inbox(
  host: Host,
  query: Asked,
  first: InboxSnapshot,
  show: (snapshot: InboxSnapshot) => void,
): Store {
  const { pageSize, event, archived } = query;
  const model = new InboxModel(query, first);
  let watching = false;
  let online = false;
  let ended = false;
  /** What to ask for next, and not before when. */
  let due: Ask = "list";
  let earliest = 0;
  let failures = 0;
  let timer: ReturnType<typeof setTimeout> | undefined;
  let expiring: ReturnType<typeof setTimeout> | undefined;
  let settling: ReturnType<typeof setTimeout> | undefined;
  /** The last list; one is asked for after the other. */
  let last: Promise<unknown> = Promise.resolve();
  let refreshing: Promise<void> | undefined;
  let growing: Promise<void> | undefined;

  const unwatch = host.watch(hear);
  hear();
  // Nothing is told of what comes while nothing is acknowledged.
  const looked = () => {
    if (globalThis.document?.visibilityState === "visible") ask("count");
  };
  globalThis.addEventListener?.("visibilitychange", looked);

  function hear(message?: ServerMessage): void {
    if (message) {
      const what = model.heard(message);
      // Another tab has asked for this one, too.
      if (!what && message.ids?.length === 0 && due === "count") due = undefined;
      ask(what);
    } else {
      const state = host.state();
      const came = state.status === "connected" && !online;
      online = state.status === "connected";
      model.connection(state);
      if (came) ask("list");
      if (state.status === "closed") rest();
    }
    tell();
  }

  function tell(): void {
    if (ended) return;
    const now = Date.now();
    const over = model.expire(now);
    show(model.snapshot);
    clearTimeout(expiring);
    if (!watching || !online) return;
    const wait = model.expiry(now) - now;
    if (wait < Infinity) expiring = setTimeout(tell, Math.min(wait, LONG));
    if (over) {
      settling ??= setTimeout(
        () => {
          settling = undefined;
          ask(over);
        },
        over === "list" ? AHEAD : SETTLE,
      );
    }
  }

  /** Asks the server, once for all that comes within a moment. */
  function ask(what: Ask): void {
    if (due !== "list") due = what ?? due;
    if (!due || timer || !watching || !online || ended) return;
    const gather = model.next === undefined ? 0 : GATHER * Math.random();
    timer = setTimeout(run, Math.max(gather, earliest - Date.now()));
  }

  async function run(): Promise<void> {
    timer = undefined;
    if (!due || !watching || !online) return;
    const what = due;
    due = undefined;
    earliest = Math.max(earliest, Date.now() - BURST * PAUSE) + PAUSE;
    try {
      if (what === "list") await refresh();
      else {
        const { turns } = model;
        const { unread } = await host.call({ type: "read", ids: [] });
        ask(model.counted(unread, turns));
        tell();
      }
      failures = 0;
    } catch {
      if (what !== "list") return; // with what comes next
      earliest = Date.now() + Math.min(RETRY, PAUSE * 2 ** failures++);
      ask("list");
    }
  }

  /** Lists one after the other, so that none overtakes another. */
  function inTurn(work: () => Promise<void>): Promise<void> {
    const mine = last.then(work);
    last = mine.catch(() => {});
    return mine;
  }

  function refresh(): Promise<void> {
    refreshing ??= inTurn(() => {
      refreshing = undefined;
      return list(false);
    });
    return refreshing;
  }

  function loadMore(): Promise<void> {
    growing ??= inTurn(async () => {
      if (model.next !== null) await list(model.next !== undefined);
    }).finally(() => {
      growing = undefined;
    });
    return growing;
  }

  async function list(older: boolean): Promise<void> {
    model.listing();
    try {
      const most = older ? pageSize : Math.max(pageSize, model.size);
      ask(model.listed(await pages(most, older ? model.next : null), older));
    } catch (error) {
      model.failed(error as never);
      throw error;
    } finally {
      tell();
    }
  }

  /** So many notifications, or as many as there are: a page of the server may be short. */
  async function pages(most: number, before?: string | null, more = {}): Promise<Listed> {
    const notifications: any[] = [];
    for (;;) {
      const limit = Math.min(MOST_LISTED, most - notifications.length);
      const page = await host.list({
        inbox: true,
        event,
        archived: archived || null,
        before,
        limit,
        ...more,
      });
      notifications.push(...page.notifications);
      before = page.next;
      if (!before || notifications.length >= most) return { ...page, notifications };
    }
  }

  async function mark(type: Mark, which: Which): Promise<void> {
    const { until } = which as { until?: string };
    const ids = until === undefined ? ([which].flat() as string[]) : [];
    const changes: Change[] = until === undefined ? [] : [{ type, until }];
    for (let i = 0; i < ids.length; i += MOST_IDS) {
      changes.push({ type, ids: ids.slice(i, i + MOST_IDS) });
    }
    for (const change of changes) model.begin(change);
    tell();
    await Promise.all(changes.map(carryOut));
  }

  async function carryOut(change: Change): Promise<void> {
    try {
      await host.call(change as unknown as ServerMessage);
    } catch (error) {
      ask("list"); // it may have been done
      throw error;
    } finally {
      model.end(change);
      tell();
    }
  }

  async function readAll(): Promise<void> {
    if (archived) return;
    if (model.next === undefined) await refresh();
    const { items, more } = model.snapshot;
    if (event === undefined) {
      const [newest] = items;
      return newest && mark("read", { until: newest.id });
    }
    const unread = ({ read }: { read: boolean }) => !read;
    const ids = (found: readonly any[]) => found.filter(unread).map(({ id }) => id);
    await mark("read", ids(items));
    if (more)
      await mark("read", ids((await pages(Infinity, null, { unread: true })).notifications));
  }

  function rest(): void {
    clearTimeout(timer);
    clearTimeout(expiring);
    clearTimeout(settling);
    timer = settling = undefined;
  }

  return {
    refresh,
    loadMore,
    readAll,
    read: (which) => mark("read", which),
    unread: (ids) => mark("unread", ids),
    archive: (which) => mark("archive", which),
    unarchive: (ids) => mark("unarchive", ids),
    watched(on) {
      watching = on;
      ask(on ? "count" : undefined);
      tell();
    },
    close() {
      ended = true;
      unwatch();
      globalThis.removeEventListener?.("visibilitychange", looked);
      rest();
    },
  };
}
