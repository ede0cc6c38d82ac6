import { Push } from "./client.js";
import { ORIGIN } from "./parts.js";
import type { Options } from "./types.js";

export type { Push } from "./client.js";
export { PushError } from "./errors.js";
export type {
  Declared,
  Events,
  Gap,
  Handler,
  History,
  HistoryQuery,
  Inbox,
  InboxItem,
  InboxQuery,
  InboxSnapshot,
  Incoming,
  Kept,
  Notification,
  Options,
  Page,
  PresenceChange,
  Present,
  Published,
  PublishFields,
  PushDevice,
  PushOptions,
  PushReason,
  PushStatus,
  State,
  Timing,
  Told,
  TokenSource,
  TransportName,
  Which,
  Withdrawn,
} from "./types.js";

/**
 * Connects to a node, and stays connected until `close()`.
 *
 * @typeParam E the events that are published, by name, with the data of each
 * @throws TypeError if the options are not complete, or the url is no address
 */
export function connect<E extends object = {}>(options: Options): Push<E> {
  return new Push(options, ORIGIN);
}
