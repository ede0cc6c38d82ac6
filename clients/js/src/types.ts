import type { Item } from "./delivery.js";
import type { PushError } from "./errors.js";

/** A notification, with the fields as the server sends them. */
export interface Notification<T = unknown> {
  readonly type: "notification";
  /** `<milliseconds>-<sequence>`; what is ephemeral has none. */
  readonly id?: string;
  /** When it was published, RFC 3339. */
  readonly time: string;
  readonly event?: string;
  /** As `JSON.parse` reads it: a whole number beyond 2^53 is rounded. Publish such as strings. */
  readonly data: T;
  readonly encoding?: "base64";
  /** From 2 on where it was sent before. */
  readonly attempt?: number;
  readonly topic?: string;
  readonly broadcast?: true;
  /** The user whose socket published it. */
  readonly from?: string;
  readonly ephemeral?: true;
  /** Acknowledges this notification and all before it of the same feed. Topics need none. */
  ack(): void;
}

/** A notification with an event that the type argument of `connect` declares. */
export type Declared<E, K extends keyof E, N = Notification> = N & {
  readonly event: K;
  readonly data: E[K];
};

/**
 * What comes where events are declared: a union that `event` tells apart. What has no event is in
 * it, with data that may be anything; what has another one is not, as it should not be there.
 */
export type Incoming<E extends object, N = Notification> = [keyof E] extends [never]
  ? N
  : { [K in keyof E & string]-?: Declared<E, K, N> }[keyof E & string] | (N & NoEvent);

interface NoEvent {
  readonly event?: never;
}

/** A notification that the server keeps, of the user's mailbox. */
export interface Kept<T = unknown> {
  readonly id: string;
  /** When it was published, RFC 3339. */
  readonly time: string;
  /** Until when it is kept. */
  readonly expires: string;
  readonly event?: string;
  /** As that of a `Notification`. */
  readonly data: T;
  readonly encoding?: "base64";
  readonly from?: string;
  /** The devices that acknowledged it, and when, where that is still known. */
  readonly acked: { readonly device: string; readonly time: string | null }[];
}

export interface HistoryQuery {
  /** The `next` of the page before. */
  before?: string | null | undefined;
  /** Most notifications of a page: 1 to 100. Default 20. */
  limit?: number | undefined;
}

/** A part of the user's mailbox, newest first. */
export interface Page<E extends object = {}> {
  readonly notifications: Incoming<E, Kept>[];
  /** The `before` of the next page, null at the end. A page may be short before that. */
  readonly next: string | null;
}

/** A page for who awaits it; all of them, one notification at a time, for who loops over it. */
export interface History<E extends object = {}>
  extends Promise<Page<E>>, AsyncIterable<Incoming<E, Kept>> {}

/** What an inbox shows. */
export interface InboxQuery {
  /** Notifications of a page: 1 to 100. Default 20. */
  pageSize?: number | undefined;
  /** Only those of this event. The count is of all. */
  event?: string | undefined;
  /** The archived ones, in place of the others. */
  archived?: boolean | undefined;
}

/** A notification in an inbox. It is another object once it was read or archived. */
export interface InboxItem<T = unknown> {
  readonly id: string;
  /** When it was published, RFC 3339. */
  readonly time: string;
  /** Until when it is kept, where that is known. */
  readonly expires?: string;
  readonly event?: string;
  /** As that of a `Notification`. */
  readonly data: T;
  readonly encoding?: "base64";
  readonly from?: string;
  readonly read: boolean;
  readonly archived: boolean;
}

/** What an inbox shows at a moment. It is another object once anything of it has changed. */
export interface InboxSnapshot<E extends object = {}> {
  /** Newest first. */
  readonly items: readonly Incoming<E, InboxItem>[];
  /** How many of the user's notifications are unread, also of those that are not shown. */
  readonly unread: number;
  /**
   * `loading` until there is something to show; `offline` without a connection; `error` where the
   * list is refused or the client has ended for a reason. The items stay.
   */
  readonly state: "loading" | "ready" | "offline" | "error";
  /** Why, where the state is `offline` or `error`. */
  readonly error?: PushError | undefined;
  /** Whether there are older ones: `loadMore()` gets them. */
  readonly more: boolean;
}

/** Ids, or all up to one: what came after it stays as it is. */
export type Which = readonly string[] | { readonly until: string };

/**
 * The user's notifications, with what was read: the same on all devices. Who has the same client
 * and the same query has the same inbox. It is kept up to date from the first `subscribe` on.
 */
export interface Inbox<E extends object = {}> {
  /** What to show; the same object until something changes. */
  snapshot(): InboxSnapshot<E>;
  /**
   * Calls a function after each change.
   *
   * @returns a function that ends that
   */
  subscribe(changed: () => void): () => void;
  /** Gets the next page of older ones. */
  loadMore(): Promise<void>;
  /** Gets what is shown again. */
  refresh(): Promise<void>;
  /**
   * Marks as read. This and the next ones show at once, wait for a connection where there is none,
   * and are taken back where they are refused: then they reject with a `PushError`.
   */
  read(which: Which): Promise<void>;
  /** Marks as unread, which brings archived ones back. */
  unread(ids: readonly string[]): Promise<void>;
  /** Puts aside, as read: neither listed nor counted. */
  archive(which: Which): Promise<void>;
  /** Takes back among the others, as read. */
  unarchive(ids: readonly string[]): Promise<void>;
  /** Marks all as read that are there by now, with an `event` those of it. */
  readAll(): Promise<void>;
  /** Ends it, for all who share it. */
  close(): void;
}

/** Why a device cannot be registered for pushes: the codes of such a `PushError`. */
export type PushReason =
  /** The page is neither from https nor from this machine. */
  | "insecure"
  /** The browser cannot. */
  | "unsupported"
  /** On iOS a page has to be on the home screen first. */
  | "ios_not_installed"
  /** The user said no. */
  | "denied"
  /** The user did not say. */
  | "dismissed"
  /** There is no service worker with push-sw.js in it. */
  | "no_service_worker"
  /** The server has no key for browsers. */
  | "not_configured"
  /** The browser's own push service gives no address, or is out of reach. */
  | "push_service"
  /** The server says no: its detail is the message, the HTTP status is in `status`. */
  | "refused";

export interface PushOptions {
  /**
   * The registration of a service worker with push-sw.js in it, or the address of one. Default: the
   * one that the page has, else `/push-sw.js`.
   */
  serviceWorker?: ServiceWorkerRegistration | string | URL | undefined;
  /** Whether to tell the server again, once a day when there is a connection. Default true. */
  renew?: boolean | undefined;
  /** What is shown where a text has no title. Default: the title of the page. */
  title?: string | undefined;
  /** The address of the picture of those that have none. */
  icon?: string | undefined;
  /** The address of the small monochrome picture that Android shows. */
  badge?: string | undefined;
}

export interface PushStatus {
  /** Whether the server reaches this device of this user while no page is open. */
  readonly enabled: boolean;
  readonly device: string;
  /** Until when the registration is good that nobody renews, RFC 3339. */
  readonly expires?: string | undefined;
  /** Why it is not enabled, where `enable()` could not do it or that cannot be told. */
  readonly error?: PushError | undefined;
}

/** Reaching this device of the user while no page is open. */
export interface PushDevice {
  /**
   * Asks the user, where that was not done, and registers this device. Call it from a click: browsers
   * ask nobody otherwise.
   *
   * @throws PushError with a `PushReason` as its code, or `lost`, `token` or `closed`
   */
  enable(options?: PushOptions): Promise<PushStatus>;
  /** Takes this device out again, as at a sign-out: before the client is closed. */
  disable(): Promise<void>;
  /** Whether it is registered; asks the server, and never the user. */
  status(): Promise<PushStatus>;
}

export interface Gap {
  readonly type: "gap";
  readonly after: string;
  /** `overflow` is this client's own: a tab that handles nothing dropped the oldest. */
  readonly reason: "trimmed" | "reset" | "overflow";
  readonly topic?: string;
  readonly broadcast?: true;
}

export interface Withdrawn {
  readonly type: "withdrawn";
  readonly id: string;
  readonly reason: "recalled" | "acked";
}

export interface PresenceChange {
  readonly type: "presence";
  readonly topic: string;
  readonly joined: string[];
  readonly left: string[];
  /** How many listen to a large topic, where nobody is named; ask again to be told names. */
  readonly count?: number;
}

export type TransportName = "websocket" | "sse" | "poll";

/** How the connection is. */
export interface State {
  readonly status: "connecting" | "connected" | "waiting" | "closed";
  readonly transport?: TransportName;
  /** The server's name for the connection. */
  readonly connection?: string;
  readonly user?: string;
  readonly device?: string;
  /** When the next attempt is made, milliseconds since the epoch. */
  readonly retryAt?: number;
  /** Why the last connection or attempt ended. */
  readonly error?: PushError | undefined;
}

export interface Events {
  notification: Notification;
  state: State;
  gap: Gap;
  presence: PresenceChange;
  withdrawn: Withdrawn;
  error: Error;
}

/** What a handler is called with: of the client's own kinds, else of a declared event. */
export type Told<E extends object, K> = K extends "notification"
  ? Incoming<E>
  : K extends keyof Events
    ? Events[K]
    : K extends keyof E
      ? Declared<E, K>
      : never;

export type Handler<E> = (event: E) => unknown;

export type TokenSource = string | ((why: { refused: boolean }) => string | Promise<string>);

/** Milliseconds. */
export interface Timing {
  /** Most random delay before the first reconnect; it doubles with each failure. Default 1000. */
  first: number;
  /** Most random delay before a reconnect. Default 30000. */
  max: number;
  /** How long a connection must last to count as a success. Default 10000. */
  uptime: number;
  /** How long an attempt may take. Default 10000. */
  open: number;
  /** How long the answer to a sign of life may take. Default 10000. */
  pong: number;
  /** After which a request without an answer is rejected with `unknown`. Default 30000. */
  answer: number;
  /** Until a better transport is tried again; it doubles each time, up to an hour, give or take a quarter. Default 60000. */
  upgrade: number;
}

export interface Options {
  /**
   * Where the node is, with the scheme, such as `https://push.example.com`; a path that begins with
   * a slash is one of the page's own origin. Default: the node that served this module.
   */
  url?: string | URL;
  /** The user's token, or a function that gets one whenever a new one is needed. */
  token: TokenSource;
  /** Default: in a browser a random one that is kept in its localStorage, else `default`. */
  device?: string;
  /** To subscribe to from the start: names, or names with the last id that was seen of each. */
  topics?: readonly string[] | Readonly<Record<string, string | null | undefined>>;
  /** `auto`: once the handlers are done. `manual`: by `notification.ack()`. Default `auto`. */
  ack?: "auto" | "manual";
  /** Which ways of listening to try, best first. Default: `websocket`, `sse`, `poll`. */
  transports?: readonly TransportName[];
  /** Whether the tabs of a browser share one connection. Default: where they can. */
  share?: boolean;
  /** Most requests that wait while there is no connection. Default 100. */
  queue?: number;
  timing?: Partial<Timing>;
  /** Where the platform has none, such as that of the package `ws`. */
  WebSocket?: any;
  fetch?: typeof globalThis.fetch;
}

/** Fields of a notification beside its data. */
export interface PublishFields {
  event?: string;
  ttl?: number;
  collapse_key?: string;
  ephemeral?: boolean;
  encoding?: "base64";
}

export interface Published {
  /** What is ephemeral has none. */
  id?: string;
  durability: "memory" | "replica" | "fsync" | "none";
  /** To how many live connections it was routed. */
  connections: number;
}

export interface Present {
  topic: string;
  /** The first 500, in order; some of a large topic. */
  users: string[];
  count: number;
  /** More than 1000 listen: the topic is large. */
  sample?: true;
}

/** A message of the server, as it is on the wire. */
export interface ServerMessage {
  readonly type: string;
  readonly id?: string;
  readonly topic?: string;
  readonly broadcast?: true;
  readonly attempt?: number;
  readonly [field: string]: any;
}

/** What a message of the client is answered with. */
export type Reply = any;

/** Where notifications come from: a connection of one's own, or one shared with other tabs. */
export interface Source {
  start(): void;
  close(): void;
  /** Acknowledges up to a notification. */
  ack(message: ServerMessage): void;
  /** A notification could not be handled, and must come again. */
  failed(): void;
  subscribe(topic: string, since: string | undefined): Promise<{ last: string | null }>;
  unsubscribe(topic: string): Promise<void>;
  /** Sends what is answered, such as a `publish`, now or when there is a connection. */
  call(message: ServerMessage): Promise<Reply>;
  /** Too much waits: stops what comes or, where that cannot be, drops the oldest: then false. */
  pause(queue: Item[]): boolean;
  resume(): void;
}

/** Whom a source tells. */
export interface Hooks {
  message(message: ServerMessage): void;
  state(state: State): void;
  error(error: Error): void;
  /** What was kept of a topic has come; the place in it is the id to go on from. */
  begun?(topic: string, place: string): void;
  /** Another tab has handled a notification, and all before it of the same feed. */
  acked?(message: ServerMessage): void;
}
