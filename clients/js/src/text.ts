import { PushError } from "./errors.js";

/**
 * Refuses what is no text for other readers: half of a pair of surrogates, which JSON can only
 * hold as an escape. The server cannot read who asked that, so no answer would come.
 *
 * @throws PushError with `invalid_json`; TypeError for what JSON cannot hold at all
 */
export function checked<T>(value: T): T {
  if (/(^|[^\\])(\\\\)*\\ud[89a-f]/.test(JSON.stringify(value))) {
    throw new PushError("invalid_json", "the text holds half a character");
  }
  return value;
}
