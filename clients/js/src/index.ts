import { Push } from "./client.js";
import { ORIGIN } from "./parts.js";
import type { Options } from "./types.js";

export type { Push } from "./client.js";
export { PushError } from "./errors.js";
export type {
  Events,
  Gap,
  Handler,
  Notification,
  Options,
  PresenceChange,
  Present,
  Published,
  PublishFields,
  State,
  Timing,
  TokenSource,
  TransportName,
  Withdrawn,
} from "./types.js";

/**
 * Connects to a node, and stays connected until `close()`.
 *
 * @throws TypeError if the options are not complete
 */
export function connect(options: Options): Push {
  return new Push(options, ORIGIN);
}
