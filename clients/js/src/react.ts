import {
  createContext,
  createElement,
  type ReactNode,
  useContext,
  useEffect,
  useRef,
  useState,
  useSyncExternalStore,
} from "react";
import { connect } from "./index.js";
import type { Inbox, InboxQuery, InboxSnapshot, Options, Push, TokenSource } from "./index.js";

/** An inbox as a component shows it. */
export interface ShownInbox<E extends object = {}> extends InboxSnapshot<E> {
  /** To mark, to get more, and so on. Without a client it does nothing. */
  readonly inbox: Inbox<E>;
}

const LOADING: InboxSnapshot = { items: [], unread: 0, state: "loading", more: false };
const nothing = async () => {};
/** What there is on a server, and before there is a client. */
const IDLE: Inbox = {
  snapshot: () => LOADING,
  subscribe: () => () => {},
  loadMore: nothing,
  refresh: nothing,
  read: nothing,
  unread: nothing,
  archive: nothing,
  unarchive: nothing,
  readAll: nothing,
  close() {},
};

const Context = createContext<Push<any> | undefined>(undefined);

/** Gives a client to the components in it. */
export function PushProvider({
  push,
  children,
}: {
  push: Push<any> | undefined;
  children?: ReactNode;
}): ReactNode {
  return createElement(Context.Provider, { value: push }, children);
}

interface Held {
  readonly key: string;
  readonly push: Push<any>;
  end: ReturnType<typeof setTimeout> | undefined;
}

/**
 * A client for as long as the component is there: undefined before it is mounted, as on a server.
 * It connects anew where an option changes that is no function; of functions the newest is called.
 *
 * @param options those of `connect`; null for none, such as while nobody is signed in. Without any
 *   it is the client of the nearest `PushProvider`.
 */
export function usePush<E extends object = {}>(options?: Options | null): Push<E> | undefined {
  const given = useContext(Context);
  const [held, hold] = useState<Held>();
  const ref = useRef<Held>(undefined);
  const newest = useRef(options);
  useEffect(() => {
    newest.current = options;
  });
  const key = options ? JSON.stringify(options) : "";
  useEffect(() => {
    const { current } = newest;
    if (!key || !current) return undefined;
    if (ref.current?.key === key) clearTimeout(ref.current.end);
    else {
      const token: TokenSource =
        typeof current.token === "string"
          ? current.token
          : (why) => {
              const source = (newest.current ?? current).token;
              return typeof source === "string" ? source : source(why);
            };
      ref.current = { key, push: connect({ ...current, token }), end: undefined };
    }
    const mine = ref.current;
    hold(mine);
    return () => {
      // Strict mode, and tools that replace modules, end an effect only to begin it again.
      mine.end = setTimeout(() => {
        if (ref.current === mine) ref.current = undefined;
        mine.push.close();
      });
    };
  }, [key]);
  if (options === undefined) return given;
  return held?.key === key ? held.push : undefined;
}

/**
 * The user's notifications, kept up to date; all components with the same query share one inbox.
 *
 * @param options the query, and the client where it is not that of the nearest `PushProvider`
 */
export function useInbox<E extends object = {}>({
  push,
  ...query
}: InboxQuery & { push?: Push<E> | undefined } = {}): ShownInbox<E> {
  const given = useContext(Context);
  const inbox = ((push ?? given)?.inbox(query) ?? IDLE) as unknown as Inbox<E>;
  const snapshot = useSyncExternalStore(
    inbox.subscribe,
    inbox.snapshot,
    () => LOADING as unknown as InboxSnapshot<E>,
  );
  return { ...snapshot, inbox };
}
