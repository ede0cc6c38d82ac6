import type { ErrorClass, PushError } from "./errors.js";
import { compare } from "./ids.js";
import { count, counted, forget, keep, type PushRecord, recordOf } from "./records.js";
import type { Settings } from "./settings.js";
import type { Tokens } from "./tokens.js";
import type {
  PushDevice,
  PushOptions,
  PushReason,
  PushStatus,
  ServerMessage,
  State,
} from "./types.js";

/** Milliseconds in which a worker that has push-sw.js in it answers. */
const PATIENCE = 3000;
/** Milliseconds after which a registration that has not changed is told to the server again. */
const DAY = 86_400_000;

/** What pushes need of their client. */
export interface PushHost {
  readonly settings: Settings;
  readonly tokens: Tokens;
  state(): State;
  /** As that of an inbox. */
  watch(told: (message?: ServerMessage) => void): () => void;
}

/** What an application has of it, and what the client calls at each connection. */
export interface PushPart extends PushDevice {
  enable(options: PushOptions, answer?: NotificationPermission): Promise<PushStatus>;
  renew(): Promise<void>;
}

type Registered = [ServiceWorkerRegistration, PushRecord];

/** The key that a subscription was made with, as the server has it. */
function keyOf({ options }: PushSubscription): string {
  const bytes = new Uint8Array(options?.applicationServerKey ?? []);
  const text = btoa(String.fromCharCode(...bytes));
  return text.replace(/\+/g, "-").replace(/\//g, "_").replace(/=/g, "");
}

/** Which notifications a change is of. */
function covers({ type, id, ids, until }: ServerMessage): (id: string) => boolean {
  if (type === "withdrawn") return (one) => one === id;
  return until === undefined ? (one) => !!ids?.includes(one) : (one) => compare(one, until) <= 0;
}

/** Pushes to this device; a part of its own, as most pages never ask for any. */
export function push(host: PushHost, PushError: ErrorClass): PushPart {
  const { settings, tokens, state } = host;
  const { url, device, timing } = settings;
  let watching = false;

  const no = (
    code: PushReason | "lost" | "closed" | "token",
    message: string,
    status?: number,
    retryAfter?: number,
  ) => new PushError(code, message, status, retryAfter);

  /** Why no page of this kind can be reached, if so. */
  function lacking(): PushError | undefined {
    if (!globalThis.isSecureContext) return no("insecure", "pushes need https, or localhost");
    const { userAgent, maxTouchPoints, standalone } = navigator as any;
    if ("serviceWorker" in navigator && globalThis.PushManager && globalThis.Notification) {
      return undefined;
    }
    const apple = /iP(hone|ad|od)/.test(userAgent) || (/Mac/.test(userAgent) && maxTouchPoints > 1);
    return apple && !standalone
      ? no("ios_not_installed", "on iOS only an app on the home screen is pushed to (iOS 16.4)")
      : no("unsupported", "this browser has no pushes, or not in a private window");
  }

  function denied(): PushError | undefined {
    return Notification.permission === "denied"
      ? no(
          "denied",
          "the user does not allow notifications; only the browser's settings change that",
        )
      : undefined;
  }

  /** Who is connected: tokens do not tell that to everybody. */
  function known(): Promise<string> {
    return new Promise((resolve, reject) => {
      const end = (done: () => void) => {
        clearTimeout(timer);
        stop();
        done();
      };
      const look = () => {
        const { user, status, error } = state();
        if (user !== undefined) end(() => resolve(user));
        else if (status === "closed") {
          end(() => reject(error ?? no("closed", "the client is closed")));
        }
      };
      const late = () => reject(state().error ?? no("lost", "there is no connection"));
      const timer = setTimeout(() => end(late), timing.open);
      const stop = host.watch(look);
      look();
    });
  }

  function fetched(path: string, init: RequestInit): Promise<Response> {
    const { fetch = globalThis.fetch } = settings;
    const signal = AbortSignal.timeout(timing.answer);
    return fetch(url + path, { ...init, cache: "no-store", signal }).catch((error) => {
      throw no("lost", `no answer came: ${error}`);
    });
  }

  /** Asks the server, once more with another token where this one is refused. */
  async function ask(method: string, path: string, body?: unknown): Promise<any> {
    for (let again = false; ; again = true) {
      const token = await tokens.get().catch((error) => {
        throw no("token", `no token: ${error}`);
      });
      const answer = await fetched(path, {
        method,
        headers: {
          Authorization: `Bearer ${token}`,
          ...(body ? { "Content-Type": "application/json" } : {}),
        },
        ...(body ? { body: JSON.stringify(body) } : {}),
      });
      const { ok, status } = answer;
      if (ok) return status === 204 ? undefined : answer.json();
      if (status === 401 && !again && !tokens.fixed) tokens.doubt(token);
      else await refused(answer);
    }
  }

  async function refused(answer: Response): Promise<never> {
    const { status } = answer;
    const { detail, retry_after } = await answer.json().catch(() => ({}));
    throw no("refused", detail ?? `the answer is ${status}`, status, retry_after);
  }

  /** Where the server has this device of the user. */
  const place = (user: string) => `/v1/user/devices/push?${new URLSearchParams({ user, device })}`;

  /** The key that subscriptions for this server are made with. */
  async function serverKey(): Promise<string> {
    const answer = await fetched("/v1/push", {});
    // A node of before has no such path.
    const { web } =
      answer.ok || answer.status === 404
        ? await answer.json().catch(() => ({}))
        : await refused(answer);
    if (!web)
      throw no("not_configured", "the server pushes to no browser: PUSHSVC_PUSH_VAPID_KEY_FILE");
    return web.key;
  }

  /** The worker that shows what comes, which is the application's own where it has one. */
  async function workerOf(given: PushOptions["serviceWorker"]): Promise<ServiceWorkerRegistration> {
    const { serviceWorker } = navigator;
    const how = `serve it from this origin: a copy of ${url}/push-sw.js, or a file with importScripts("${url}/push-sw.js")`;
    const named = typeof given === "string" || given instanceof URL;
    const path = named ? String(given) : "/push-sw.js";
    const there = named ? undefined : (given ?? (await serviceWorker.getRegistration()));
    const found =
      there ??
      (await serviceWorker.register(path).catch((error) => {
        throw no("no_service_worker", `there is no ${path} (${error}); ${how}`);
      }));
    if (!(await greets(found))) {
      const script = (found.active ?? found.waiting)?.scriptURL ?? path;
      const waits = found.waiting ? "; a newer version waits for all tabs to be closed" : "";
      throw no("no_service_worker", `${script} does not have push-sw.js in it${waits}; ${how}`);
    }
    return found;
  }

  /** Whether a worker answers as push-sw.js does: the one that there is, or one that comes. */
  async function greets(registration: ServiceWorkerRegistration): Promise<boolean> {
    const coming = registration.installing ?? registration.waiting;
    const ports: MessagePort[] = [];
    let timer: ReturnType<typeof setTimeout> | undefined;
    const answered = await new Promise<boolean>((resolve) => {
      timer = setTimeout(() => resolve(false), registration.active ? PATIENCE : timing.open);
      const hello = () => {
        const { port1, port2 } = new MessageChannel();
        ports.push(port1);
        port1.onmessage = () => resolve(true);
        if (registration.active) registration.active.postMessage({ pushsvc: "hello" }, [port2]);
        else if (coming?.state === "redundant") resolve(false);
      };
      coming?.addEventListener("statechange", hello);
      hello();
    });
    clearTimeout(timer);
    for (const port of ports) port.close();
    return answered;
  }

  async function subscribed(
    { pushManager }: ServiceWorkerRegistration,
    key: string,
  ): Promise<PushSubscription> {
    const old = await pushManager.getSubscription();
    if (old && keyOf(old) === key.replace(/=/g, "")) return old;
    // One that was made with another key is no good for this one, and stands in the way.
    await old?.unsubscribe();
    let timer: ReturnType<typeof setTimeout> | undefined;
    try {
      return await Promise.race([
        pushManager.subscribe({ userVisibleOnly: true, applicationServerKey: key }),
        // A browser that does not reach its push service may try for ever.
        new Promise<never>((_, reject) => {
          timer = setTimeout(() => reject("no answer"), timing.answer);
        }),
      ]);
    } catch (error) {
      throw denied() ?? no("push_service", `the browser's push service gives no address: ${error}`);
    } finally {
      clearTimeout(timer);
    }
  }

  /** Subscribes, and tells the server. */
  async function register(
    registration: ServiceWorkerRegistration,
    record: PushRecord,
  ): Promise<PushStatus> {
    const key = await serverKey();
    const subscription = await subscribed(registration, key);
    const body = { provider: "web", subscription: subscription.toJSON(), key };
    const { expires } = await ask("PUT", place(record.user), body);
    const { endpoint } = subscription;
    await keep(registration.scope, { ...record, endpoint, key, at: Date.now() });
    watch();
    return { enabled: true, device, expires };
  }

  /** The workers that this device was registered with, by whichever user. */
  async function registered(): Promise<Registered[]> {
    const all = (await navigator.serviceWorker?.getRegistrations()) ?? [];
    const found = await Promise.all(
      all.map(async (each) => [each, await recordOf(each.scope)] as const),
    );
    return found.filter(
      ([, record]) => record?.url === url && record.device === device,
    ) as unknown as Registered[];
  }

  /** One page at a time: two would subscribe one in place of the other. */
  async function inTurn<T>(work: () => Promise<T>): Promise<T> {
    const { locks } = navigator;
    return locks ? ((await locks.request("pushsvc push", work)) as T) : work();
  }

  /** Takes from the screen what was read elsewhere, and renews what the browser changed. */
  function watch(): void {
    if (watching) return;
    watching = true;
    host.watch((message) => {
      if (!message || message.topic !== undefined || message.broadcast) return;
      if (/^(read|archive|withdrawn)$/.test(message.type)) clear(message).catch(() => {});
    });
    navigator.serviceWorker.addEventListener("message", ({ data }) => {
      if (data?.pushsvc === "renew") renew();
    });
  }

  async function clear(message: ServerMessage): Promise<void> {
    const covered = covers(message);
    for (const [registration, { user }] of await registered()) {
      if (user !== state().user) continue;
      for (const shown of await registration.getNotifications()) {
        const id = shown.data?.pushsvc?.id;
        if (id && covered(id)) shown.close();
      }
      const { scope } = registration;
      if (message.unread !== undefined && (await counted(scope)) !== undefined) {
        await count(scope, message.unread);
      }
    }
  }

  async function enable(
    { serviceWorker, renew = true, title, icon, badge }: PushOptions,
    answer?: NotificationPermission,
  ): Promise<PushStatus> {
    const why = lacking() ?? denied();
    if (why) throw why;
    if (answer !== "granted") {
      throw no("dismissed", "the user has not answered whether to allow notifications");
    }
    const user = await known();
    return inTurn(async () => {
      const registration = await workerOf(serviceWorker);
      return register(registration, {
        url,
        user,
        device,
        endpoint: "",
        key: "",
        at: 0,
        renew,
        title: title ?? (document.title || location.host),
        icon,
        badge,
      });
    });
  }

  /** First the browser's part, which ends it whatever becomes of the rest. */
  async function disable(): Promise<void> {
    await inTurn(async () => {
      let ended = false;
      for (const [registration] of await registered()) {
        const { scope, pushManager } = registration;
        const subscription = await pushManager?.getSubscription();
        ended = (await subscription?.unsubscribe().catch(() => false)) ?? true;
        for (const shown of await registration.getNotifications()) {
          if (shown.data?.pushsvc) shown.close();
        }
        if (await counted(scope)) await count(scope, 0);
        await forget(scope);
      }
      try {
        await ask("DELETE", place(await known()));
      } catch (error) {
        if (!ended) throw error;
      }
    });
  }

  async function status(): Promise<PushStatus> {
    try {
      const why = lacking() ?? denied();
      if (why) throw why;
      const user = await known();
      await serverKey();
      for (const [{ pushManager }, record] of await registered()) {
        const subscription = await pushManager.getSubscription();
        if (record.user !== user || subscription?.endpoint !== record.endpoint) continue;
        const { expires } = await ask("GET", place(user));
        return { enabled: true, device, expires };
      }
    } catch (e) {
      const error = e as PushError;
      // It is not registered, which is no trouble.
      if (error.status !== 404) return { enabled: false, device, error };
    }
    return { enabled: false, device };
  }

  async function renew(): Promise<void> {
    if (lacking() || denied()) return;
    await inTurn(async () => {
      for (const [registration, record] of await registered()) {
        if (record.user !== state().user) continue;
        watch();
        if (!record.renew) continue;
        const subscription = await registration.pushManager.getSubscription();
        const same = subscription?.endpoint === record.endpoint;
        if (!same || Date.now() - record.at > DAY) await register(registration, record);
      }
    }).catch(() => {}); // the next connection tries again, and `status` tells
  }

  return { enable, disable, status, renew };
}
