// In place of parts.ts in the module that a node serves.

export const ORIGIN: string | undefined = new URL(import.meta.url).origin;

let again = "";

async function load(path: string) {
  try {
    return await import(path + again);
  } catch (error) {
    // Some browsers remember that a module could not be loaded; by another address they try again.
    again = `?${Date.now()}`;
    throw error;
  }
}

export const loadFallback = (): Promise<typeof import("./fallback.js")> =>
  load("./client-fallback.js");
export const loadTabs = (): Promise<typeof import("./tabs.js")> => load("./client-tabs.js");
export const loadInbox = (): Promise<typeof import("./store.js")> => load("./client-inbox.js");
export const loadPush = (): Promise<typeof import("./push.js")> => load("./client-push.js");
export const loadClient = (): Promise<typeof import("./index.js")> => load("./client.js");
