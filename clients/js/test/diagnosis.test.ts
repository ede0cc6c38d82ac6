import assert from "node:assert/strict";
import { afterEach, test } from "node:test";
import { connect, type Push, type State } from "../src/index.js";

// A page, whose browser keeps every reason from it.
Object.assign(globalThis, { location: { origin: "http://shop.example", protocol: "http:" } });

class Refused {
  onclose?: (event: object) => void;
  constructor() {
    queueMicrotask(() => this.onclose?.({ code: 1006, reason: "" }));
  }
  close() {}
}

type Answer = (path: string, init: RequestInit) => Promise<Response>;
const served = async () => new Response("", { headers: { "Content-Type": "text/javascript" } });
const reset = async (): Promise<Response> => {
  throw new TypeError("Failed to fetch");
};
const never: Answer = (_, { signal }) =>
  new Promise((_, reject) => signal?.addEventListener("abort", () => reject(signal.reason)));

let push: Push | undefined;
afterEach(() => push?.close());

/** A client that gets no connection, with its states and what it asked. */
function page(answer: Answer, timing = {}, socket: unknown = Refused) {
  const asked: string[] = [];
  const states: State[] = [];
  push = connect({
    url: "http://push.example",
    token: "t",
    transports: ["websocket"],
    WebSocket: socket,
    timing: { first: 1, max: 1, ...timing },
    fetch: async (url, init = {}) => {
      const path = String(url).replace("http://push.example", "");
      asked.push(path);
      return answer(path, init);
    },
  });
  push.on("state", (state) => states.push(state));
  const attempts = () => states.filter(({ status }) => status === "connecting").length;
  return { asked, states, attempts, codes: () => states.map(({ error }) => error?.code) };
}

async function until(condition: () => boolean): Promise<void> {
  while (!condition()) await new Promise((resolve) => setTimeout(resolve, 2));
}

test("a page concludes that it is refused where the node answers before and after", async () => {
  const { asked, codes } = page((path) => (path === "/client.js" ? served() : reset()));
  await until(() => codes().includes("origin_refused"));
  assert.deepEqual(asked.slice(0, 3), ["/client.js", "/v1/poll", "/client.js"]);
});

test("a page does not conclude that it is refused from a node that died meanwhile", async () => {
  let dead = false;
  const { codes } = page(async (path) => {
    dead ||= path !== "/client.js";
    return dead ? reset() : served();
  });
  await until(() => codes().includes("lost"));
  assert.ok(!codes().includes("origin_refused"));
});

test("a page does not conclude that it is refused from an answer that comes too late", async () => {
  const { codes } = page((path, init) => (path === "/client.js" ? served() : never(path, init)), {
    open: 20,
  });
  await until(() => codes().includes("lost"));
  assert.ok(!codes().includes("origin_refused"));
});

test("a page that may read an answer is not refused, and asks for no preflight", async () => {
  const { asked, codes } = page(async (path, { method }) => {
    if (method !== "HEAD") return reset(); // a proxy that answers OPTIONS itself
    return path === "/client.js" ? served() : new Response("", { status: 405 });
  });
  await until(() => codes().includes("1006"));
  assert.deepEqual(asked.slice(0, 2), ["/client.js", "/v1/poll"]);
  assert.ok(!codes().includes("origin_refused"));
});

test("a page forgets the reason when another one is found", async () => {
  let refuses = true;
  const { codes } = page((path) => (refuses && path === "/client.js" ? served() : reset()));
  await until(() => codes().includes("origin_refused"));
  refuses = false;
  await until(() => codes().at(-1) === "lost");
});

test("a page tries again while it finds out why, and says when", async () => {
  const { asked, states, attempts } = page(never, { open: 60_000 });
  await until(() => attempts() > 20);
  assert.equal(asked.length, 1, "one question at a time");
  for (const { status, retryAt } of states) assert.ok(status !== "waiting" || retryAt);
});

test("a page asks more and more rarely why nothing answers", async () => {
  const { asked, attempts } = page(reset);
  await until(() => attempts() > 60);
  // At the attempts 1, 2, 4, 8, 16 and 32: as a script, opaquely, and by the other scheme.
  assert.ok(asked.length <= 18, String(asked.length));
});

test("a page that was closed asks nothing more", async () => {
  const { asked } = page(async () => {
    push?.close();
    return reset();
  });
  await until(() => asked.length > 0);
  await new Promise((resolve) => setTimeout(resolve, 20));
  assert.equal(asked.length, 1);
});

test("an answer that comes after a connection changes nothing", async () => {
  let settle = (_: Response) => {};
  let sockets = 0;
  class Late {
    onclose?: (event: object) => void;
    onmessage?: (event: object) => void;
    constructor() {
      const first = !sockets++;
      queueMicrotask(() => {
        if (first) this.onclose?.({ code: 1006, reason: "" });
        else this.onmessage?.({ data: '{"type":"welcome"}' });
      });
    }
    close() {}
  }
  const { asked, states } = page(
    () => new Promise((resolve) => (settle = resolve)),
    { open: 60_000 },
    Late,
  );
  await until(() => states.at(-1)?.status === "connected");
  settle(new Response(""));
  await new Promise((resolve) => setTimeout(resolve, 20));
  assert.equal(states.at(-1)?.error, undefined);
  assert.equal(asked.length, 1);
});
