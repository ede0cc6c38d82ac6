import { compare } from "./ids.js";

/** The id before all others. */
const START = "0-0";

/**
 * Where a client is in a topic.
 *
 * The server answers a `subscribe` with the topic's newest id, `last`, and sends the topic's state
 * behind that, whose ids are up to `last`. So `last` is the place to go on from only once it is
 * sure that no state is on its way: else it would be skipped.
 */
export class Place {
  /** After which id to go on with the next connection; undefined for the topic's state. */
  declare since: string | undefined;
  /** The topic's newest id, as the last answer told it; undefined before the first. */
  declare last: string | undefined;

  constructor(since?: string) {
    this.since = since;
  }

  /**
   * The topic is subscribed to.
   *
   * @returns whether it is still to be found out, by asking for anything else, if a state comes
   */
  answered(last: string): boolean {
    this.last = last;
    if (last === START) this.since ??= START; // there is nothing in it
    return this.since === undefined;
  }

  /** Something was answered that was asked after the topic was: a state would be here. */
  begun(): void {
    this.since ??= this.last;
  }

  /** A notification came; also amid the state its id is the place, as the rest stands after it. */
  came(id: string): void {
    if (this.since === undefined || compare(id, this.since) > 0) this.since = id;
  }

  /** The ids of the topic begin anew. */
  reset(): void {
    this.since = START;
  }
}
