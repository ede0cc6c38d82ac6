import { PushError } from "./errors.js";
import { loadPush } from "./parts.js";
import type { PushHost, PushPart } from "./push.js";
import type { PushDevice } from "./types.js";

/** What an application has, and what the client does by itself at each connection. */
export interface Reach extends PushDevice {
  renew(): void;
}

/** Pushes to this device, of which all but this is loaded by the first who wants them. */
export function reach(host: PushHost): Reach {
  let made: PushPart | undefined;
  const part = async () => {
    const loaded = await loadPush().catch((error) => {
      throw new PushError("lost", String(error));
    });
    return (made ??= loaded.push(host, PushError));
  };
  const { PushManager } = globalThis;
  return {
    async enable(options = {}) {
      // Before all else: the click of a user does not outlast a request in every browser.
      const answer = PushManager && Notification.requestPermission();
      return (await part()).enable(options, await answer);
    },
    disable: async () => (await part()).disable(),
    status: async () => (await part()).status(),
    renew() {
      if (PushManager && Notification.permission === "granted") {
        part().then(
          (it) => it.renew(),
          () => {},
        );
      }
    },
  };
}
