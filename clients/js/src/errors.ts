import type { ServerMessage } from "./types.js";

/**
 * What went wrong: a refusal of the server, or the end of a connection.
 *
 * `code` is one of the server's (see PROTOCOL.md, "Errors"), the close code of the connection as
 * text, or one of the client's own: `closed`, `offline`, `lost`, `token`, `queue_full`,
 * `too_many_topics`, `unusable` for a transport that does not get through, and `unknown` for a
 * request that was sent and never answered: it may have been carried out. A page concludes
 * `origin_refused` from what it may still ask, as its browser keeps the refusal to itself.
 */
export class PushError extends Error {
  override readonly name = "PushError";
  declare readonly code: string;
  /** The HTTP status, where the error is an answer to a request. */
  declare readonly status: number | undefined;
  /** Seconds to wait before trying again. */
  declare readonly retryAfter: number | undefined;
  /** The topic that is refused, where it is about one. */
  declare readonly topic?: string;

  constructor(code: string, message: string, status?: number, retryAfter?: number) {
    super(message);
    this.code = code;
    this.status = status;
    this.retryAfter = retryAfter;
  }
}

/** The error that a message of the server tells. */
export function told({ code, detail, retry_after }: Omit<ServerMessage, "type">): PushError {
  return new PushError(String(code), detail, undefined, retry_after);
}

/** The error of a request whose answer cannot come any more. */
export function unknown(): PushError {
  return new PushError("unknown", "no answer came: it may have been done");
}

/** For a part that is loaded later: a class of its own would be another one. */
export type ErrorClass = typeof PushError;
