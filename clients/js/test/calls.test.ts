import assert from "node:assert/strict";
import { test } from "node:test";
import { sleep } from "../src/backoff.js";
import { calls } from "../src/calls.js";
import { PushError, unknown } from "../src/errors.js";
import { checked } from "../src/text.js";
import type { Link } from "../src/transports/link.js";
import type { Reply, ServerMessage } from "../src/types.js";

/** A link whose answers the test gives. */
function scripted(most = 8) {
  const asked: { data: unknown; resolve(reply: Reply): void; reject(error: Error): void }[] = [];
  const link: Link = {
    most,
    request: ({ data }: ServerMessage) =>
      new Promise((resolve, reject) => asked.push({ data, resolve, reject })),
    ack() {},
    close() {},
  };
  return { link, asked, data: () => asked.map((each) => each.data) };
}

const publish = (data: unknown) => ({ type: "publish", topic: "a", data });
const limited = () => new PushError("rate_limited", "slow down", undefined, 0.02);

test("what is published at once is sent at once, as many as may be under way", async () => {
  const { link, asked, data } = scripted(3);
  const { call } = calls(() => link, 1);
  const published = [1, 2, 3, 4, 5].map((number) => call(publish(number)));
  assert.deepEqual(data(), [1, 2, 3], "the bound on what waits is for who is not connected");
  asked[1]?.resolve("second");
  assert.equal(await published[1], "second");
  await sleep(0);
  assert.deepEqual(data(), [1, 2, 3, 4]);
});

test("what is put off for the rate is sent again in its order, one by one", async () => {
  const { link, asked, data } = scripted();
  const { call } = calls(() => link, 10);
  const published = [1, 2, 3].map((number) => call(publish(number)));
  for (const { reject } of [...asked]) reject(limited());
  await sleep(0);
  published.push(call(publish(4)));
  assert.deepEqual(data(), [1, 2, 3]);
  for (const [index, number] of [1, 2, 3, 4].entries()) {
    while (asked.length < 4 + index) await sleep(5);
    await sleep(5);
    assert.deepEqual(data().slice(3), [1, 2, 3, 4].slice(0, index + 1));
    asked.at(-1)?.resolve(number);
  }
  assert.deepEqual(await Promise.all(published), [1, 2, 3, 4]);
});

test("what is put off for no time at all waits all the same", async () => {
  const { link, asked } = scripted();
  const { call } = calls(() => link, 10);
  call(publish(1));
  asked[0]?.reject(new PushError("rate_limited", "slow down", undefined, 0));
  await sleep(50);
  assert.equal(asked.length, 1);
});

test("a request without an answer holds nothing back", async () => {
  const { link, asked, data } = scripted(1);
  const { call } = calls(() => link, 10);
  const [first, second] = [call(publish(1)), call(publish(2))];
  asked[0]?.reject(unknown());
  await assert.rejects(first as Promise<Reply>, { code: "unknown" });
  await sleep(0);
  assert.deepEqual(data(), [1, 2]);
  asked[1]?.resolve("done");
  assert.equal(await second, "done");
});

test("what is ephemeral is dropped without a connection, whatever waits", async () => {
  const { call, close } = calls(() => undefined, 1);
  const waits = call(publish(1));
  const dropped = await call({ ...publish(2), ephemeral: true });
  assert.deepEqual(dropped, { durability: "none", connections: 0 });
  await assert.rejects(call(publish(3)), { code: "queue_full" });
  close(new PushError("closed", "the client was closed"));
  await assert.rejects(waits, { code: "closed" });
});

test("half a character is refused before it is sent, and whole ones are not", () => {
  for (const bad of ["half \ud83d", { deep: ["\udc00"] }, { "\ud800": 1 }, "\\\ud800"]) {
    assert.throws(() => checked(bad), { code: "invalid_json" });
  }
  for (const good of ["😀", "\\ud83d", "\\\\ud800", { data: "é" }, null]) checked(good);
});
