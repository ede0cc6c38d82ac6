import type { Options, Timing, TransportName } from "./types.js";

/** The options, complete. */
export interface Settings {
  readonly url: string;
  readonly device: string;
  readonly transports: readonly TransportName[];
  readonly queue: number;
  readonly timing: Timing;
  readonly WebSocket: any;
  readonly fetch: typeof globalThis.fetch | undefined;
}

/** Fills in what the options leave out. `origin` is where this module came from, if from a node. */
export function settings(options: Options, origin: string | undefined): Settings {
  const url = address(options.url ?? origin);
  if (!options.token) throw new TypeError("connect needs a token, or a function that gets one");
  const WebSocket = options.WebSocket ?? globalThis.WebSocket;
  const all = options.transports ?? ["websocket", "sse", "poll"];
  const transports = all.filter((name) => name !== "websocket" || WebSocket);
  if (!transports.length) throw new TypeError("no WebSocket here: pass one, or more transports");
  return {
    url,
    device: options.device ?? ownDevice(),
    transports,
    queue: options.queue ?? 100,
    timing: {
      first: 1000,
      max: 30_000,
      uptime: 10_000,
      open: 10_000,
      pong: 10_000,
      answer: 30_000,
      upgrade: 60_000,
      ...options.timing,
    },
    WebSocket,
    fetch: options.fetch,
  };
}

/** The address of a node: without a scheme a browser would take it for a path of the page. */
function address(url: string | URL = ""): string {
  const given = String(url);
  const full = /^\/(?!\/)/.test(given) ? globalThis.location?.origin + given : given;
  if (/^(http|ws)s?:\/\/[^\s/?#][^\s?#]*$/i.test(full)) {
    return full.replace(/\/+$/, "").replace(/^ws/i, "http");
  }
  throw new TypeError(
    `connect needs a url such as https://push.example.com or http://localhost:8080, not "${given}"`,
  );
}

/** A browser's own device, the same each time. */
function ownDevice(): string {
  try {
    const key = "pushsvc.device";
    const kept = localStorage.getItem(key);
    if (kept) return kept;
    const made = `web-${Math.random().toString(36).slice(2, 12)}`;
    localStorage.setItem(key, made);
    return made;
  } catch {
    return "default"; // no browser, or one that keeps nothing
  }
}
