import type { Push } from "../index.js";
import { loadClient } from "../parts.js";

/** A connection that the bells of a page with the same addresses share. */
interface Shared {
  readonly push: Promise<Push>;
  users: number;
}

const connections = new Map<string, Shared>();

/** A user's token, from the page's backend: as text, in JSON, or as `{"token": …}`. */
async function token(address: string): Promise<string> {
  const answer = await fetch(address, { credentials: "include", cache: "no-store" });
  if (!answer.ok) throw new Error(`${answer.url} answered with ${answer.status}`);
  const text = (await answer.text()).trim();
  if (!/^[{"]/.test(text)) return text;
  const told = JSON.parse(text);
  return told.token ?? told;
}

async function open(url: string | null, tokenUrl: string): Promise<Push> {
  const { connect } = await loadClient();
  return connect({ ...(url && { url }), token: () => token(tokenUrl) });
}

/** A bell's share in a connection. */
export interface Loan {
  readonly push: Promise<Push>;
  /** Gives it back; with `dead` nobody else is given it any more, and the next one is new. */
  release(dead?: boolean): void;
}

/**
 * The connection to a node, made for the first bell that wants it and closed after the last one.
 *
 * @param url the node; null for the one that served this module
 * @param tokenUrl where the page's backend gives out tokens
 */
export function borrow(url: string | null, tokenUrl: string): Loan {
  const key = JSON.stringify([url, tokenUrl]);
  const shared = connections.get(key) ?? { push: open(url, tokenUrl), users: 0 };
  connections.set(key, shared);
  shared.users++;
  let released = false;
  return {
    push: shared.push,
    release(dead = false) {
      const last = !released && !--shared.users;
      released = true;
      // Who is signed in may be another when the next bell comes, be it at once.
      if ((dead || last) && connections.get(key) === shared) connections.delete(key);
      if (!last) return;
      shared.push.then(
        (push) => push.close(),
        () => {},
      );
    },
  };
}
