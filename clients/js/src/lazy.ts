import { sleep } from "./backoff.js";
import { PushError } from "./errors.js";
import { loadInbox } from "./parts.js";
import type { Asked, Host, Store } from "./store.js";
import type { Inbox, InboxSnapshot } from "./types.js";

/** Milliseconds before a part that could not be loaded is tried again. */
const AGAIN = 5000;

/** An inbox that is there at once, and loads what it does when it is asked for something. */
export function lazy(host: Host, query: Asked, closed: () => void): Inbox {
  const listeners = new Set<() => void>();
  let snapshot: InboxSnapshot = { items: [], unread: 0, state: "loading", more: false };
  let store: Store | undefined;
  let coming: Promise<Store> | undefined;
  let over = false;
  let leave: (() => void) | undefined;

  const show = (next: InboxSnapshot) => {
    if (next === snapshot) return;
    snapshot = next;
    for (const listener of [...listeners]) {
      try {
        listener();
      } catch (error) {
        console.error("pushsvc:", error);
      }
    }
  };

  const load = async (): Promise<Store> => {
    if (over) throw new PushError("closed", "the inbox is closed");
    coming ??= loadInbox().then(
      (part) => {
        store = part.inbox(host, query, snapshot, show);
        store.watched(!!listeners.size);
        return store;
      },
      (error) => {
        coming = undefined;
        show({ ...snapshot, state: "error", error });
        sleep(AGAIN).then(() => {
          if (listeners.size) load().catch(() => {});
        });
        throw error;
      },
    );
    return coming;
  };

  const rest = () => {
    leave?.();
    leave = undefined;
  };

  const via = (name: keyof Store) => (what?: any) => {
    const call = (it: Store) => it[name](what as never) as Promise<void>;
    return store && !over ? call(store) : load().then(call);
  };

  return {
    snapshot: () => snapshot,
    subscribe(changed) {
      if (over) return () => {};
      const listener = () => changed();
      listeners.add(listener);
      leave ??= host.take();
      if (store) store.watched(true);
      else load().catch(() => {});
      return () => {
        if (!listeners.delete(listener) || listeners.size) return;
        rest();
        store?.watched(false);
      };
    },
    read: via("read"),
    unread: via("unread"),
    archive: via("archive"),
    unarchive: via("unarchive"),
    readAll: via("readAll"),
    loadMore: via("loadMore"),
    refresh: via("refresh"),
    close() {
      if (over) return;
      over = true;
      closed();
      listeners.clear();
      rest();
      coming?.then((it) => it.close()).catch(() => {});
    },
  };
}
