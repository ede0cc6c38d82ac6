import assert from "node:assert/strict";
import { test } from "node:test";
import { connect } from "../src/index.js";

test("those whose network comes back together do not come back at once", async () => {
  const events = new EventTarget();
  const { addEventListener } = globalThis;
  globalThis.addEventListener = events.addEventListener.bind(events) as typeof addEventListener;
  let tries: number[] = [];
  class Dead {
    onclose?: (event: object) => void;
    constructor() {
      tries.push(Date.now());
      queueMicrotask(() => this.onclose?.({ code: 1006, reason: "" }));
    }
    close() {}
  }
  const clients = Array.from({ length: 100 }, () => {
    const client = connect({
      url: "http://127.0.0.1:9",
      token: "t",
      transports: ["websocket"],
      WebSocket: Dead,
      timing: { first: 400, max: 400 },
    });
    return client;
  });
  const waiting = () => clients.every(({ state }) => state.status === "waiting");
  const pause = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));
  while (!waiting()) await pause(1);
  tries = [];
  const began = Date.now();
  events.dispatchEvent(new Event("online"));
  assert.ok(clients.every(({ state }) => state.retryAt !== undefined));
  const delays = clients.map(({ state }) => (state.retryAt as number) - began);
  for (const client of clients) client.close();
  globalThis.addEventListener = addEventListener;
  assert.ok(Math.min(...delays) < 100 && Math.max(...delays) > 300, String(delays));
  assert.ok(delays.every((ms) => ms <= 450));
});
