/** Where a node serves this module; a package does not know. */
export const ORIGIN: string | undefined = undefined;

// The parts that not every page needs. A bundler finds them by these very words.
export const loadFallback = () => import("./fallback.js");
export const loadTabs = () => import("./tabs.js");
export const loadInbox = () => import("./store.js");
export const loadPush = () => import("./push.js");

/** The client, for the bell, which needs it where it is to make a connection. */
export const loadClient = () => import("./index.js");
