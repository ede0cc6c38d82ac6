import assert from "node:assert/strict";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { mock, test } from "node:test";
import { connect, type Options, type Push, type PushError } from "../src/index.js";

/** A server that sends a stream of messages, and whatever else it is told to. */
async function server(answer: (request: IncomingMessage, response: ServerResponse) => void) {
  const listening = createServer(answer);
  await new Promise<void>((resolve) => listening.listen(0, "127.0.0.1", resolve));
  const url = `http://127.0.0.1:${(listening.address() as AddressInfo).port}`;
  const end = () => {
    listening.close();
    listening.closeAllConnections();
  };
  return { url, end };
}

function json(response: ServerResponse, status: number, body: unknown, headers = {}): void {
  response.writeHead(status, { "Content-Type": "application/json", ...headers });
  response.end(JSON.stringify(body));
}

/** What refuses every request as the server does. */
function refusing(status: number, code: string, detail: string, headers = {}) {
  return server((_, response) =>
    json(response, status, { type: `urn:x:${code}`, detail }, headers),
  );
}

async function until(condition: () => boolean): Promise<void> {
  while (!condition()) await new Promise((resolve) => setTimeout(resolve, 5));
}

const SOON = { first: 1, max: 1 };
const streaming = (url: string, more: Partial<Options> = {}): Options => ({
  url,
  token: "t",
  transports: ["sse"],
  timing: SOON,
  ...more,
});

/** What is written to the console meanwhile. */
async function written(during: () => Promise<void>): Promise<[string, string][]> {
  const lines: [string, string][] = [];
  for (const name of ["error", "warn"] as const) {
    mock.method(console, name, (...args: unknown[]) => lines.push([name, args.join(" ")]));
  }
  try {
    await during();
  } finally {
    mock.restoreAll();
  }
  return lines;
}

test("a handler of an event gets the notifications with it, and others count as handled", async () => {
  const acked: string[] = [];
  const events = ["a", undefined, "b", "a", "state", "notification"];
  const { url, end } = await server((request, response) => {
    if (request.url?.startsWith("/v1/ack")) {
      request.on("data", (body) => acked.push(JSON.parse(body).id));
      return json(response, 200, {});
    }
    response.writeHead(200, { "Content-Type": "text/event-stream" });
    response.write(`data: ${JSON.stringify({ type: "welcome", user: "u", device: "d" })}\n\n`);
    events.forEach((event, i) => {
      const message = { type: "notification", id: `${i + 1}-0`, data: i, event };
      response.write(`data: ${JSON.stringify(message)}\n\n`);
    });
    return undefined;
  });
  const push = connect<{ a: number; b: number; state: number }>(streaming(url));
  const got: [string, number][] = [];
  const states: string[] = [];
  push.on("a", ({ data }) => got.push(["a", data]));
  const stop = push.on("b", ({ data }) => got.push(["b", data]));
  push.on("state", ({ status }) => states.push(status));
  await until(() => acked.at(-1) === "6-0");
  assert.deepEqual(got, [
    ["a", 0],
    ["b", 2],
    ["a", 3],
  ]);
  assert.ok(states.every((status) => typeof status === "string"));

  // Whoever comes last may go, and come again; going twice takes nobody else away.
  stop();
  push.on("b", () => {});
  stop();
  push.close();
  end();
});

test("handlers of all and of one event are called together, and wait for each other", async () => {
  const { url, end } = await server((request, response) => {
    if (request.url?.startsWith("/v1/ack")) return json(response, 200, {});
    response.writeHead(200, { "Content-Type": "text/event-stream" });
    response.write('data: {"type":"welcome"}\n\n');
    for (const [id, event] of [
      ["1-0", "notification"],
      ["2-0", "a"],
    ]) {
      response.write(`data: ${JSON.stringify({ type: "notification", id, event, data: 1 })}\n\n`);
    }
    return undefined;
  });
  const push = connect<{ a: number }>(streaming(url));
  const got: string[] = [];
  push.on("notification", ({ event }) => got.push(`all ${event}`));
  push.on("a", ({ event }) => got.push(`one ${event}`));
  await until(() => got.length >= 3);
  assert.deepEqual(got, ["all notification", "all a", "one a"]);
  push.close();
  end();
});

test("a client that ends for good says why in the console, once, if nobody listens", async () => {
  const { url, end } = await refusing(401, "invalid_token", "the token expired: get a new one");
  const lines = await written(async () => {
    const push = connect(streaming(url));
    push.on("notification", () => {});
    await until(() => push.state.status === "closed");
    push.close();
  });
  assert.deepEqual(lines, [["error", "pushsvc: PushError: the token expired: get a new one"]]);
  end();
});

test("a client whose end somebody is told of says nothing in the console", async () => {
  const { url, end } = await refusing(403, "forbidden", "not you");
  const listeners: ((push: Push) => Promise<unknown>)[] = [
    (push) => new Promise((resolve) => push.on("error", resolve)),
    (push) =>
      new Promise((resolve) =>
        push.on("state", ({ status, error }) => status === "closed" && resolve(error)),
      ),
    async (push) => {
      try {
        for await (const _ of push);
      } catch (error) {
        return error;
      }
      return undefined;
    },
  ];
  for (const listen of listeners) {
    const lines = await written(async () => {
      const error = (await listen(connect(streaming(url)))) as PushError;
      assert.deepEqual([error.code, error.message], ["forbidden", "not you"]);
    });
    assert.deepEqual(lines, []);
  }
  const both = connect(streaming(url));
  const errors: unknown[] = [];
  both.on("error", (error) => errors.push(error));
  both.on("state", () => {});
  await until(() => both.state.status === "closed");
  assert.deepEqual(errors, [], "its state has told it");
  end();
});

test("a client that never got a connection says why, and no two times the same", async () => {
  const { url, end } = await server(() => {});
  end();
  const lines = await written(async () => {
    const push = connect(streaming(url));
    let attempts = 0;
    const listening = connect(streaming(url));
    listening.on("state", ({ status }) => status === "connecting" && attempts++);
    await until(() => attempts > 5);
    push.close();
    listening.close();
  });
  assert.equal(lines.length, 1, String(lines));
  assert.match(
    String(lines[0]),
    /^warn,pushsvc: no connection yet: TypeError: fetch failed \(.*ECONNREFUSED/,
  );
});

test("history is a page for who awaits it, and everything for who loops over it", async () => {
  const asked: string[] = [];
  const { url, end } = await server(({ url: path = "", headers }, response) => {
    const { pathname, searchParams } = new URL(path, "http://x");
    if (pathname !== "/v1/user/notifications") return;
    asked.push(`${headers.authorization} ${searchParams}`);
    const before = Number(searchParams.get("before")?.split("-")[0] ?? 6);
    const limit = Number(searchParams.get("limit") ?? 2);
    const ids = [5, 4, 3, 2, 1].filter((id) => id < before).slice(0, limit);
    const notifications = ids.map((id) => ({ id: `${id}-0`, data: id, acked: [] }));
    const last = ids.at(-1) ?? 1;
    json(response, 200, { notifications, next: last > 1 ? `${last}-0` : null });
  });
  const push = connect(streaming(url));
  const page = await push.history({ limit: 3 });
  assert.deepEqual(
    page.notifications.map(({ data }) => data),
    [5, 4, 3],
  );
  const rest = await push.history({ before: page.next, limit: 3 });
  assert.deepEqual([rest.notifications.map(({ id }) => id), rest.next], [["2-0", "1-0"], null]);
  assert.deepEqual(asked, ["Bearer t limit=3", "Bearer t before=3-0&limit=3"]);

  const all: unknown[] = [];
  for await (const { data } of push.history()) all.push(data);
  assert.deepEqual(all, [5, 4, 3, 2, 1]);
  assert.equal(asked.length, 5);
  for await (const _ of push.history()) break;
  assert.equal(asked.length, 6, "who stops asks for no more");
  push.close();
  await assert.rejects(() => push.history(), { code: "closed" });
  end();
});

test("history waits where it is told to, and gets one new token where one is refused", async () => {
  let limited = false;
  const { url, end } = await server(({ url: path = "", headers }, response) => {
    if (!path.startsWith("/v1/user/")) return;
    if (headers.authorization !== "Bearer t2") return json(response, 401, { detail: "expired" });
    if (limited) return json(response, 200, { notifications: [], next: null });
    limited = true;
    return json(response, 429, {}, { "Retry-After": "0.05" });
  });
  const asked: boolean[] = [];
  const token = ({ refused }: { refused: boolean }) => `t${asked.push(refused)}`;
  const push = connect(streaming(url, { token }));
  assert.deepEqual(await push.history(), { notifications: [], next: null });
  assert.ok(limited);
  assert.deepEqual(asked, [false, true]);
  push.close();

  const fixed = connect(streaming(url, { token: "old" }));
  await assert.rejects(() => fixed.history(), {
    name: "PushError",
    status: 401,
    message: "expired",
  });
  const bad = connect(streaming(url, { token: () => "old" }));
  await assert.rejects(() => bad.history(), { status: 401 });
  for (const each of [fixed, bad]) each.close();
  end();
});

test("what is asked of a stream goes on with the token that took the place of a refused one", async () => {
  const used: string[] = [];
  const { url, end } = await server(({ url: path = "", headers }, response) => {
    if (path.startsWith("/v1/stream")) {
      response.writeHead(200, { "Content-Type": "text/event-stream" });
      response.write('data: {"type":"welcome","user":"u","device":"d"}\n\n');
      response.write('data: {"type":"notification","id":"1-0","data":1}\n\n');
      return;
    }
    const token = `${headers.authorization}`.replace("Bearer ", "");
    used.push(`${path.replace(/\?.*/, "").replace(/.*\//, "")} ${token}`);
    if (token === "t1") json(response, 401, { type: "urn:x:invalid_token" });
    else json(response, 200, path.startsWith("/v1/topic") ? { users: [] } : { id: "2-0" });
  });
  let tokens = 0;
  const push = connect(streaming(url, { token: () => `t${++tokens}` }));
  for (const topic of ["a", "b"]) await push.publish(topic, 1);
  await push.presence("a");
  push.on("notification", () => {});
  await until(() => used.at(-1)?.startsWith("ack") === true);
  assert.deepEqual(used, [
    "notifications t1",
    "notifications t2",
    "notifications t2",
    "presence t2",
    "ack t2",
  ]);
  push.close();
  end();
});

for (const [name, headers] of Object.entries({
  nothing: {},
  zero: { "Retry-After": "0" },
  "a date": { "Retry-After": "Wed, 21 Oct 2099 07:28:00 GMT" },
})) {
  test(`history is refused after a few tries where the server says 429 and ${name}`, async () => {
    let asked = 0;
    const { url, end } = await server(({ url: path = "" }, response) => {
      if (path.startsWith("/v1/user/")) json(response, 429, { detail: `no ${++asked}` }, headers);
    });
    const push = connect(streaming(url));
    await assert.rejects(() => push.history(), { status: 429, message: "no 5" });
    assert.equal(asked, 5);
    push.close();
    end();
  });
}

test("history is refused after a few tokens, however long the server says to wait", async () => {
  const { url, end } = await server(({ url: path = "" }, response) => {
    if (path.startsWith("/v1/user/")) json(response, 401, {}, { "Retry-After": "0.01" });
  });
  let tokens = 0;
  const push = connect(streaming(url, { token: () => `t${++tokens}` }));
  await assert.rejects(() => push.history(), { status: 401 });
  assert.ok(tokens <= 5, String(tokens));
  push.close();
  end();
});

test("who closes the client ends the history that waits, or has no answer", async () => {
  let asked = 0;
  const { url, end } = await server(({ url: path = "" }, response) => {
    if (!path.startsWith("/v1/user/")) return;
    if (asked++) json(response, 429, {}, { "Retry-After": "3600" });
  });
  const push = connect(streaming(url));
  const pages = [push.history(), push.history()];
  await until(() => asked === 2);
  await new Promise(setImmediate);
  push.close();
  for (const page of pages) await assert.rejects(page, { code: "closed" });
  assert.equal(asked, 2);
  end();
});

test("who closes the client ends the search for the topic that is refused", async () => {
  const asked = { first: 0, second: 0 };
  const { url, end } = await server(({ url: path = "", headers }, response) => {
    if (path.startsWith("/v1/stream")) return json(response, 403, { type: "urn:x:topic" });
    asked[headers.authorization?.split(" ")[1] as "first"]++;
    return json(response, 429, {}, { "Retry-After": "0.01" });
  });
  const [first, second] = Object.keys(asked).map((token) => {
    const push = connect(streaming(url, { token, topics: ["a"], timing: { ...SOON, open: 3e5 } }));
    push.on("error", () => {});
    return push;
  }) as [Push, Push];
  await until(() => asked.first > 2);
  first.close();
  const before = [asked.first, asked.second] as const;
  await until(() => asked.second > before[1] + 10);
  assert.ok(asked.first <= before[0] + 1, String([asked.first, before[0]]));
  second.close();
  end();
});
