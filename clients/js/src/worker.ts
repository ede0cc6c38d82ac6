import { count, type PushRecord, recordOf } from "./records.js";

/** Milliseconds in which a text has to come: the browser waits no longer for what is shown. */
const PATIENCE = 8000;

/** What a push brings: see docs/push.md. Of one with ids only, the text is still to be got. */
interface Payload {
  readonly v: number;
  readonly id: string;
  readonly capability?: string;
  readonly title?: string;
  readonly body?: string;
  readonly url?: string;
  readonly icon?: string;
  readonly badge?: number;
  readonly tag?: string;
  readonly group?: string;
}

/** What a shown notification has of it. */
interface Shown {
  readonly id: string;
  readonly capability?: string | undefined;
  readonly url?: string | undefined;
  readonly group?: string | undefined;
  /** Whether its push set the number at the app's icon. */
  readonly counts: boolean;
}

/** The windows of the application, as a worker has them. */
interface WindowClient {
  readonly url: string;
  focus(): Promise<unknown>;
  postMessage(message: unknown): void;
}

/** What of a service worker is used; TypeScript has the types of pages here. */
export interface WorkerScope {
  readonly location: { readonly origin: string };
  readonly registration: ServiceWorkerRegistration;
  readonly clients: {
    matchAll(query: object): Promise<readonly WindowClient[]>;
    openWindow(url: string): Promise<unknown>;
  };
  addEventListener(type: string, listener: (event: any) => void): void;
  /** Whether this is here already. */
  pushsvc?: boolean;
}

/**
 * Where a click leads: the page's own origin, unless the publisher named another address in full.
 * Anything else, such as `javascript:` or `//elsewhere`, leads to the start of the application.
 */
export function target(url: string | undefined, start: string): string {
  try {
    const to = new URL(url ?? "", start);
    const full = /^https?:\/\//i.test(url ?? "");
    if (full || to.origin === new URL(start).origin) return to.href;
  } catch {
    // no address
  }
  return start;
}

function payloadOf(data: { json(): any } | null): Payload | undefined {
  try {
    const payload = data?.json();
    return payload?.v >= 1 && typeof payload.id === "string" ? payload : undefined;
  } catch {
    return undefined;
  }
}

/** Shows what is pushed. It only listens, so that a worker which does other things can import it. */
export function serve(worker: WorkerScope): void {
  if (worker.pushsvc) return;
  worker.pushsvc = true;
  const { registration, clients } = worker;

  const windows = () => clients.matchAll({ type: "window", includeUncontrolled: true });

  /** Asks the node, with no more rights than to this one notification. */
  async function ask(
    known: PushRecord | undefined,
    capability: string,
    path: string,
    init: RequestInit,
  ): Promise<any> {
    const answer = await fetch((known?.url ?? worker.location.origin) + path, {
      ...init,
      headers: { Authorization: `Bearer ${capability}` },
      credentials: "omit",
      cache: "no-store",
    });
    return answer.ok ? answer.json() : {};
  }

  /** What there is to show, got from the node where only ids came. */
  async function complete(payload: Payload, known: PushRecord | undefined): Promise<Payload> {
    const { title, body, capability } = payload;
    if (title || body || !capability) return payload;
    try {
      const signal = AbortSignal.timeout(PATIENCE);
      const got = await ask(known, capability, "/v1/push/notification", { signal });
      return { ...got, ...payload };
    } catch {
      return payload; // something has to be shown
    }
  }

  async function show(pushed: Payload): Promise<void> {
    const { scope } = registration;
    const known = await recordOf(scope);
    const payload = await complete(pushed, known);
    const { id, capability, title, body, url, icon, badge, group, tag = id } = payload;
    const shown = await registration.getNotifications({ tag });
    const data: Shown = { id, capability, url, group, counts: badge !== undefined };
    // A push may come twice: that is no news.
    const news = tag !== id && !shown.some((each) => each.data?.pushsvc?.id === id);
    const heading = title || known?.title || new URL(scope).host;
    await registration.showNotification(heading, {
      tag,
      renotify: news,
      timestamp: Number.parseInt(id),
      data: { pushsvc: data },
      ...(body && { body }),
      ...((icon || known?.icon) && { icon: icon || known?.icon }),
      ...(known?.badge && { badge: known.badge }),
    } as NotificationOptions);
    if (badge !== undefined) await count(scope, badge);
  }

  async function mark({ capability, counts }: Shown): Promise<void> {
    if (!capability) return;
    const { scope } = registration;
    try {
      const init = { method: "POST", keepalive: true };
      const { unread } = await ask(await recordOf(scope), capability, "/v1/push/read", init);
      if (counts && unread !== undefined) await count(scope, unread);
    } catch {
      // It stays unread, as it does where nobody clicks.
    }
  }

  async function open(url: string | undefined): Promise<void> {
    const { scope } = registration;
    const to = target(url, scope);
    const there = await windows();
    const fits = (each: WindowClient) => (url ? each.url === to : each.url.startsWith(scope));
    const window = there.find(fits);
    await (window ? window.focus() : clients.openWindow(to));
  }

  /** Only a page has a token to tell the server with: one that is open, or the next one. */
  async function renew(subscribed: unknown): Promise<void> {
    const known = await recordOf(registration.scope);
    if (!known) return; // another's
    if (!subscribed) {
      await registration.pushManager.subscribe({
        userVisibleOnly: true,
        applicationServerKey: known.key,
      });
    }
    for (const each of await windows()) each.postMessage({ pushsvc: "renew" });
  }

  worker.addEventListener("push", (event) => {
    const payload = payloadOf(event.data);
    if (payload) event.waitUntil(show(payload));
  });

  worker.addEventListener("notificationclick", (event) => {
    const shown: Shown | undefined = event.notification.data?.pushsvc;
    if (!shown) return;
    event.notification.close();
    event.waitUntil(Promise.all([mark(shown), open(shown.url)]));
  });

  worker.addEventListener("pushsubscriptionchange", (event) => {
    event.waitUntil(renew(event.newSubscription));
  });

  // A page asks whether this is in its worker.
  worker.addEventListener("message", ({ data, ports }) => {
    if (data?.pushsvc === "hello") ports[0]?.postMessage({ pushsvc: "hello" });
  });
}
