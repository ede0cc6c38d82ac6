import assert from "node:assert/strict";
import { beforeEach, test } from "node:test";
import { PushError } from "../src/errors.js";
import { push, type PushHost } from "../src/push.js";
import { reach } from "../src/reach.js";
import type { PushRecord } from "../src/records.js";
import { settings } from "../src/settings.js";
import { Tokens } from "../src/tokens.js";
import type { PushOptions, ServerMessage, State } from "../src/types.js";
import { serve, target } from "../src/worker.js";

const NODE = "https://push.example";
const SCOPE = "https://shop.example/";
const KEY = "BAAB_-8";
const OTHER = "BAAB_-9";

// --- a browser -----------------------------------------------------------------------------------

const stored = new Map<string, any>();
const store = {
  get: (key: string) => ({ result: stored.get(key) }),
  put: (value: unknown, key: string) => ({ result: stored.set(key, value) }),
  delete: (key: string) => ({ result: stored.delete(key) }),
};
const database = {
  createObjectStore() {},
  close() {},
  transaction() {
    const made: any = { objectStore: () => store };
    queueMicrotask(() => made.oncomplete());
    return made;
  },
};
const indexedDB = {
  open() {
    const request: any = { result: database };
    queueMicrotask(() => {
      request.onupgradeneeded();
      request.onsuccess();
    });
    return request;
  },
};

class Shown {
  closed = false;
  readonly title: string;
  readonly options: any;
  constructor(title: string, options: any) {
    this.title = title;
    this.options = options;
  }
  get tag() {
    return this.options.tag;
  }
  get data() {
    return this.options.data;
  }
  close() {
    this.closed = true;
  }
}

const bytes = (text: string) => new Uint8Array(Buffer.from(text, "base64url")).buffer;

/** A service worker's registration, with whatever answers messages in it. */
class Registration {
  readonly scope = SCOPE;
  shown: Shown[] = [];
  subscription: any = null;
  subscriptions = 0;
  fails: Error | undefined;
  heard: ((event: any) => void) | undefined;
  waiting: any = null;
  installing: any = null;
  active: any = {
    scriptURL: `${SCOPE}sw.js`,
    postMessage: (data: unknown, ports: MessagePort[]) => this.heard?.({ data, ports }),
  };
  pushManager = {
    getSubscription: async () => this.subscription,
    subscribe: async (options: any) => {
      if (this.fails) throw this.fails;
      const endpoint = `https://service.example/${++this.subscriptions}`;
      this.subscription = {
        endpoint,
        options: { applicationServerKey: bytes(options.applicationServerKey) },
        toJSON: () => ({ endpoint, keys: { p256dh: "p", auth: "a" } }),
        unsubscribe: async () => {
          this.subscription = null;
          return true;
        },
      };
      assert.equal(options.userVisibleOnly, true);
      return this.subscription;
    },
  };
  async showNotification(title: string, options: any) {
    this.shown = this.shown.filter(({ tag }) => tag !== options.tag);
    this.shown.push(new Shown(title, options));
  }
  async getNotifications({ tag }: { tag?: string } = {}) {
    return this.shown.filter((each) => !each.closed && (!tag || each.tag === tag));
  }
}

let registration: Registration;
let asked: { method: string; path: string; body?: any; token: string | null }[];
let answers: Record<string, (body: any) => Response>;
let badges: number[];
let permission: NotificationPermission;

const json = (body: unknown, status = 200) => Response.json(body, { status });

function define(name: string, value: unknown): void {
  Object.defineProperty(globalThis, name, { value, configurable: true, writable: true });
}

beforeEach(() => {
  stored.clear();
  registration = new Registration();
  asked = [];
  badges = [];
  permission = "granted";
  answers = {
    "GET /v1/push": () => json({ providers: ["web"], web: { key: KEY } }),
    "PUT /v1/user/devices/push": () => json({ provider: "web", expires: "2027-01-01T00:00:00Z" }),
    "GET /v1/user/devices/push": () => json({ provider: "web", expires: "2027-01-01T00:00:00Z" }),
    "DELETE /v1/user/devices/push": () => new Response(null, { status: 204 }),
    "POST /v1/push/read": () => json({ unread: 2 }),
  };
  define("indexedDB", indexedDB);
  define("isSecureContext", true);
  define("PushManager", class {});
  define("Notification", {
    get permission() {
      return permission;
    },
  });
  define("document", { title: "The shop" });
  define("location", { origin: "https://shop.example", host: "shop.example" });
  define("fetch", async (address: string, init: any) => {
    assert.ok(address.startsWith(NODE));
    const path = address.slice(NODE.length);
    const { method = "GET", headers } = init;
    const body = init.body && JSON.parse(init.body);
    asked.push({ method, path, body, token: headers?.Authorization });
    const answer = answers[`${method} ${path.replace(/\?.*/, "")}`];
    return answer ? answer(body) : json({ detail: "no such path" }, 404);
  });
  define("navigator", {
    userAgent: "Chrome",
    setAppBadge: async (number: number) => void badges.push(number),
    serviceWorker: {
      getRegistration: async () => registration,
      getRegistrations: async () => [registration],
      register: async () => registration,
      addEventListener() {},
    },
  });
});

// --- the service worker --------------------------------------------------------------------------

/** A worker with push-sw.js in it, and its windows. */
function worker(...urls: string[]) {
  const listeners: Record<string, (event: any) => void> = {};
  const opened: string[] = [];
  const posted: unknown[] = [];
  const windows = urls.map((url) => ({
    url,
    focus: async () => void opened.push(`focus ${url}`),
    postMessage: (message: unknown) => void posted.push(message),
  }));
  const scope: any = {
    location: { origin: "https://shop.example" },
    registration,
    clients: {
      matchAll: async () => windows,
      openWindow: async (url: string) => void opened.push(url),
    },
    addEventListener: (type: string, listener: any) => {
      assert.ok(!(type in listeners), "it is there once");
      listeners[type] = listener;
    },
  };
  serve(scope);
  serve(scope); // as where it is imported twice
  registration.heard = listeners.message;
  const dispatch = async (type: string, event: object) => {
    const work: Promise<unknown>[] = [];
    listeners[type]?.({ ...event, waitUntil: (promise: Promise<unknown>) => work.push(promise) });
    await Promise.all(work);
    return work.length;
  };
  const pushed = (payload: unknown) => dispatch("push", { data: { json: () => payload } });
  return { opened, posted, dispatch, pushed };
}

const RECORD: PushRecord = {
  url: NODE,
  user: "ann",
  device: "d1",
  endpoint: "https://service.example/1",
  key: KEY,
  at: 0,
  renew: true,
  title: "The shop",
  icon: "/icon.png",
  badge: "/badge.png",
};

test("what is pushed is shown: with its tag, in place of an older one, and counted", async () => {
  stored.set(SCOPE, RECORD);
  const { pushed } = worker();
  const text = {
    v: 1,
    id: "1764000000123-0",
    capability: "pc1.x",
    title: "Shipped",
    body: "Today",
  };
  await pushed({ ...text, url: "/orders/5", icon: "/o.png", badge: 3, tag: "o5", group: "order" });
  const [first] = registration.shown;
  assert.equal(first?.title, "Shipped");
  assert.deepEqual(first?.options, {
    body: "Today",
    icon: "/o.png",
    badge: "/badge.png",
    tag: "o5",
    renotify: true,
    timestamp: 1764000000123,
    data: {
      pushsvc: {
        id: "1764000000123-0",
        capability: "pc1.x",
        url: "/orders/5",
        group: "order",
        counts: true,
      },
    },
  });
  assert.deepEqual(badges, [3]);
  await pushed({ ...text, id: "1764000000124-0", title: "Arrived", tag: "o5" });
  await pushed({ ...text, id: "1764000000124-0", title: "Arrived", tag: "o5" });
  await pushed({ v: 1, id: "1764000000125-0", title: "Another" });
  const told = registration.shown.map(({ title, tag, options }) => [title, tag, options.renotify]);
  assert.deepEqual(told, [
    ["Arrived", "o5", false], // it came twice
    ["Another", "1764000000125-0", false],
  ]);
  assert.deepEqual(badges, [3], "which only a badge changes");
  assert.equal(asked.length, 0);
});

test("where only ids come the text is got; and where it cannot be, something is shown", async () => {
  stored.set(SCOPE, RECORD);
  const { pushed } = worker();
  answers["GET /v1/push/notification"] = () =>
    json({ id: "1-0", title: "Secret", url: "/s", group: "mail", tag: "m", badge: 4, read: false });
  await pushed({ v: 1, id: "1-0", capability: "pc1.y" });
  assert.deepEqual(asked, [
    { method: "GET", path: "/v1/push/notification", body: undefined, token: "Bearer pc1.y" },
  ]);
  assert.equal(registration.shown[0]?.title, "Secret");
  assert.equal(registration.shown[0]?.tag, "m");
  const { url, group } = registration.shown[0]?.data.pushsvc;
  assert.deepEqual([url, group, badges], ["/s", "mail", [4]]);
  delete answers["GET /v1/push/notification"];
  await pushed({ v: 1, id: "2-0", capability: "pc1.z" });
  answers["GET /v1/push/notification"] = () => {
    throw new TypeError("offline");
  };
  await pushed({ v: 1, id: "3-0", capability: "pc1.z" });
  stored.clear();
  await pushed({ v: 1, id: "4-0" });
  const titles = registration.shown.slice(1).map(({ title }) => title);
  assert.deepEqual(titles, ["The shop", "The shop", "shop.example"]);
});

test("what is pushed by others is left to others", async () => {
  const { dispatch, pushed } = worker();
  for (const other of ["text", null, {}, { id: "1-0" }, { v: 1 }]) {
    assert.equal(await pushed(other), 0);
  }
  assert.equal(await dispatch("push", { data: null }), 0);
  const broken = { json: () => JSON.parse("{") };
  assert.equal(await dispatch("push", { data: broken }), 0);
  assert.equal(await dispatch("notificationclick", { notification: new Shown("x", {}) }), 0);
});

test("a click marks as read, counts, and leads to a window that is there or a new one", async () => {
  stored.set(SCOPE, RECORD);
  const { opened, dispatch } = worker(`${SCOPE}cart`, `${SCOPE}orders/5`);
  const click = (url?: string, counts = false) => {
    const data = { pushsvc: { id: "1-0", capability: "pc1.x", url, counts } };
    const notification = new Shown("x", { data });
    return dispatch("notificationclick", { notification }).then(() => notification.closed);
  };
  assert.equal(await click("/orders/5", true), true);
  assert.deepEqual(asked, [
    { method: "POST", path: "/v1/push/read", body: undefined, token: "Bearer pc1.x" },
  ]);
  assert.deepEqual(badges, [2]);
  answers["POST /v1/push/read"] = () => {
    throw new TypeError("offline");
  };
  for (const url of ["/orders/6", undefined, "https://carrier.example/5", "javascript:alert(1)"]) {
    await click(url);
  }
  assert.deepEqual(opened, [
    `focus ${SCOPE}orders/5`,
    `${SCOPE}orders/6`,
    `focus ${SCOPE}cart`,
    "https://carrier.example/5",
    SCOPE,
  ]);
  assert.deepEqual(badges, [2]);
});

test("only what is of the page or an address in full is followed", () => {
  for (const bad of [
    "javascript:alert(1)",
    "data:text/html,x",
    "//else.example",
    "/\\else.example",
    "file:///etc",
    " https://else.example",
    "blob:https://else.example/1",
    "https://",
    "ftp://x.example",
  ]) {
    assert.equal(target(bad, SCOPE), SCOPE, bad);
  }
  assert.equal(target("/a?b#c", SCOPE), `${SCOPE}a?b#c`);
  assert.equal(target("HTTPS://Else.example/a", SCOPE), "https://else.example/a");
  assert.equal(target(undefined, SCOPE), SCOPE);
});

test("a subscription that the browser changed is renewed, and told to the pages", async () => {
  const { posted, dispatch } = worker(SCOPE);
  await dispatch("pushsubscriptionchange", {});
  assert.deepEqual([registration.subscriptions, posted], [0, []], "another's");
  stored.set(SCOPE, RECORD);
  await dispatch("pushsubscriptionchange", {});
  await dispatch("pushsubscriptionchange", { newSubscription: {} });
  assert.equal(registration.subscriptions, 1);
  assert.deepEqual(posted, [{ pushsvc: "renew" }, { pushsvc: "renew" }]);
});

// --- the page ------------------------------------------------------------------------------------

/** The part of a client that is connected as a user. */
function client(user = "ann", token: any = "t") {
  let state: State = { status: "connected", user };
  const watchers = new Set<(message?: ServerMessage) => void>();
  const host: PushHost = {
    settings: settings(
      { url: NODE, token, device: "d1", timing: { open: 50, answer: 50 } },
      undefined,
    ),
    tokens: new Tokens(token),
    state: () => state,
    watch: (told) => {
      watchers.add(told);
      return () => watchers.delete(told);
    },
  };
  const told = (message?: ServerMessage) => {
    for (const each of watchers) each(message);
  };
  const become = (next: State) => {
    state = next;
    told();
  };
  return { ...push(host, PushError), told, become, host };
}

const codeOf = (promise: Promise<unknown>) =>
  promise.then(
    () => "",
    ({ code }) => code,
  );
const paths = () => asked.map(({ method, path }) => `${method} ${path}`);
const PLACE = "/v1/user/devices/push?user=ann&device=d1";
const enabled = (options: PushOptions = {}) => client().enable(options, "granted");

test("a page subscribes with the server's key and tells the server", async () => {
  worker();
  assert.deepEqual(await enabled({ icon: "/i.png" }), {
    enabled: true,
    device: "d1",
    expires: "2027-01-01T00:00:00Z",
  });
  assert.deepEqual(paths(), ["GET /v1/push", `PUT ${PLACE}`]);
  assert.deepEqual(asked[1]?.body, {
    provider: "web",
    subscription: { endpoint: "https://service.example/1", keys: { p256dh: "p", auth: "a" } },
    key: KEY,
  });
  assert.equal(asked[1]?.token, "Bearer t");
  const { at, ...record } = stored.get(SCOPE);
  assert.ok(Date.now() - at < 60_000);
  const expected = { ...RECORD, title: "The shop", icon: "/i.png", badge: undefined };
  assert.deepEqual({ ...record, at: 0 }, expected);
  // Again is the same subscription, unless the server has another key by now.
  await enabled();
  assert.equal(registration.subscriptions, 1);
  answers["GET /v1/push"] = () => json({ providers: ["web"], web: { key: OTHER } });
  await enabled();
  assert.equal(registration.subscriptions, 2);
  assert.equal(asked.at(-1)?.body.key, OTHER);
});

test("a user is asked within the click, before anything is loaded or waited for", async () => {
  worker();
  const { host } = client();
  let questions = 0;
  const answer = async () => (++questions, permission);
  Object.assign(Notification, { requestPermission: answer });
  permission = "default";
  const asking = codeOf(reach(host).enable());
  assert.equal(questions, 1);
  assert.equal(await asking, "dismissed");
  permission = "granted";
  const one = reach(host);
  assert.equal((await one.enable()).enabled, true);
  assert.equal((await one.status()).enabled, true);
  registration.subscription = null;
  one.renew();
  const again = "https://service.example/2";
  while (stored.get(SCOPE).endpoint !== again)
    await new Promise((resolve) => setImmediate(resolve));
  await one.disable();
  assert.equal((await one.status()).enabled, false);
  assert.equal(questions, 2);
  // Where there is nothing of it, as in Node, nobody is asked and nothing happens.
  define("PushManager", undefined);
  define("Notification", undefined);
  const nowhere = reach(host);
  nowhere.renew();
  assert.equal(await codeOf(nowhere.enable()), "unsupported");
});

test("it says why it cannot be", async () => {
  worker();
  assert.equal(await codeOf(client().enable({}, "default")), "dismissed");
  permission = "denied";
  assert.equal(await codeOf(client().enable({}, "denied")), "denied");
  permission = "granted";
  registration.fails = new Error("AbortError");
  assert.equal(await codeOf(enabled()), "push_service");
  registration.fails = undefined;
  const { subscribe } = registration.pushManager;
  registration.pushManager.subscribe = () => new Promise(() => {}); // as where it is not reached
  assert.equal(await codeOf(enabled()), "push_service");
  registration.pushManager.subscribe = subscribe;
  answers["PUT /v1/user/devices/push"] = () => json({ detail: "that host is not allowed" }, 400);
  await assert.rejects(enabled(), {
    code: "refused",
    message: "that host is not allowed",
    status: 400,
  });
  answers["GET /v1/push"] = () => json({ providers: ["apns"] });
  assert.equal(await codeOf(enabled()), "not_configured");
  delete answers["GET /v1/push"];
  assert.equal(await codeOf(enabled()), "not_configured", "a node of before");
  answers["GET /v1/push"] = () => {
    throw new TypeError("no network");
  };
  assert.equal(await codeOf(enabled()), "lost");
  define("isSecureContext", false);
  assert.equal(await codeOf(enabled()), "insecure");
  define("isSecureContext", true);
  define("PushManager", undefined);
  assert.equal(await codeOf(enabled()), "unsupported");
  define("navigator", { userAgent: "Mozilla/5.0 (iPhone; …)" });
  assert.equal(await codeOf(enabled()), "ios_not_installed");
  define("navigator", { userAgent: "Mozilla/5.0 (Macintosh; …)", maxTouchPoints: 5 });
  assert.equal(await codeOf(enabled()), "ios_not_installed", "an iPad");
  define("navigator", { userAgent: "Mozilla/5.0 (iPhone; …)", standalone: true });
  assert.equal(await codeOf(enabled()), "unsupported", "an old one");
  assert.equal(stored.size, 0);
});

test("a worker without push-sw.js in it is told from one with it, and from none", async (t) => {
  const { serviceWorker } = navigator as any;
  t.mock.timers.enable({ apis: ["setTimeout"] });
  const asking = codeOf(enabled());
  // As soon as it was greeted nothing but its silence is waited for.
  await new Promise<void>((resolve) => {
    registration.active.postMessage = () => resolve();
  });
  t.mock.timers.tick(3000);
  assert.equal(await asking, "no_service_worker");
  t.mock.timers.reset();
  serviceWorker.getRegistration = async () => undefined;
  const registered: string[] = [];
  serviceWorker.register = async (path: string) => {
    registered.push(path);
    throw new TypeError("404");
  };
  await assert.rejects(enabled(), { code: "no_service_worker", message: /importScripts/ });
  await codeOf(enabled({ serviceWorker: "/own.js" }));
  assert.deepEqual(registered, ["/push-sw.js", "/own.js"]);
});

test("one that is being installed is waited for", async () => {
  const { active } = registration;
  registration.active = null;
  const changes: (() => void)[] = [];
  registration.installing = {
    state: "installing",
    addEventListener: (_: string, change: () => void) => changes.push(change),
    removeEventListener() {},
  };
  worker();
  const asking = enabled({ serviceWorker: registration as never });
  while (!changes.length) await new Promise((resolve) => setImmediate(resolve));
  registration.active = active;
  changes[0]?.();
  assert.equal((await asking).enabled, true);
});

test("it waits for the connection, which tells the user", async () => {
  worker();
  const one = client();
  one.become({ status: "connecting" });
  const asking = one.enable({}, "granted");
  one.become({ status: "connected", user: "ann" });
  assert.equal((await asking).enabled, true);
  one.become({ status: "connecting" });
  assert.equal(await codeOf(one.enable({}, "granted")), "lost");
  one.become({ status: "closed" });
  assert.equal(await codeOf(one.enable({}, "granted")), "closed");
});

test("a token that is refused is replaced once", async () => {
  worker();
  let tokens = 0;
  answers["PUT /v1/user/devices/push"] = () => json({ detail: "expired" }, 401);
  const one = client("ann", async () => `t${++tokens}`);
  await assert.rejects(one.enable({}, "granted"), { code: "refused", status: 401 });
  const told = asked.filter(({ method }) => method === "PUT").map(({ token }) => token);
  assert.deepEqual(told, ["Bearer t1", "Bearer t2"]);
});

test("status tells whether this user is reached here, and asks nobody for anything", async () => {
  worker();
  const one = client();
  assert.deepEqual(await one.status(), { enabled: false, device: "d1" });
  await one.enable({}, "granted");
  assert.equal((await one.status()).enabled, true);
  assert.equal((await client("ben").status()).enabled, false, "it is another's");
  answers["GET /v1/user/devices/push"] = () => json({ detail: "none" }, 404);
  assert.deepEqual(await one.status(), { enabled: false, device: "d1" }, "the server forgot it");
  permission = "denied";
  assert.equal((await one.status()).error?.code, "denied");
});

test("a connection renews what was registered: once a day, and what has changed at once", async () => {
  worker();
  const one = client();
  await one.renew();
  assert.deepEqual(paths(), [], "nobody asked for it");
  await one.enable({}, "granted");
  asked = [];
  await one.renew();
  assert.deepEqual(paths(), []);
  stored.set(SCOPE, { ...stored.get(SCOPE), at: Date.now() - 86_500_000 });
  await one.renew();
  assert.deepEqual(paths(), ["GET /v1/push", `PUT ${PLACE}`]);
  registration.subscription = null; // as a browser does after a while
  await client("ben").renew();
  assert.equal(registration.subscription, null, "it is another's");
  answers["PUT /v1/user/devices/push"] = () => json({}, 503);
  await one.renew();
  assert.equal(asked.at(-1)?.body.subscription.endpoint, "https://service.example/2");
  stored.set(SCOPE, { ...stored.get(SCOPE), renew: false });
  asked = [];
  await one.renew();
  permission = "default";
  await one.renew();
  assert.deepEqual(paths(), []);
});

test("disable ends it in the browser and on the server, or in one of them", async () => {
  worker();
  const one = client();
  await one.enable({}, "granted");
  await registration.showNotification("x", { tag: "1-0", data: { pushsvc: { id: "1-0" } } });
  await registration.showNotification("y", { tag: "other", data: null });
  await one.disable();
  assert.equal(registration.subscription, null);
  assert.equal(paths().at(-1), `DELETE ${PLACE}`);
  assert.deepEqual(
    registration.shown.map(({ closed }) => closed),
    [true, false],
  );
  assert.ok(!stored.has(SCOPE));
  answers["DELETE /v1/user/devices/push"] = () => json({}, 503);
  assert.equal(await codeOf(one.disable()), "refused", "neither did anything");
  await one.enable({}, "granted");
  assert.equal(await codeOf(one.disable()), "", "the browser did");
});

test("what is read elsewhere is taken from the screen", async () => {
  worker();
  const one = client();
  await one.enable({}, "granted");
  const show = (...ids: string[]) =>
    Promise.all(
      ids.map((id) => registration.showNotification(id, { tag: id, data: { pushsvc: { id } } })),
    );
  await show("1-0", "2-0", "3-0", "4-0", "5-0");
  await registration.showNotification("other", { tag: "other", data: {} });
  const left = () => registration.shown.filter(({ closed }) => !closed).map(({ tag }) => tag);
  const until = async (...tags: string[]) => {
    while (`${left()}` !== `${tags}`) await new Promise((resolve) => setImmediate(resolve));
  };
  one.told({ type: "read", ids: ["2-0"], unread: 4 });
  await until("1-0", "3-0", "4-0", "5-0", "other");
  one.told({ type: "withdrawn", id: "1-0", topic: "t" }); // of a topic
  one.told({ type: "withdrawn", id: "4-0" });
  await until("1-0", "3-0", "5-0", "other");
  assert.deepEqual(badges, [], "no push set one");
  stored.set(`${SCOPE} badge`, 5);
  one.told({ type: "archive", until: "3-0", unread: 1 });
  await until("5-0", "other");
  while (!badges.length) await new Promise((resolve) => setImmediate(resolve));
  assert.deepEqual(badges, [1]);
});
