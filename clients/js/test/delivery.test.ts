import assert from "node:assert/strict";
import { test } from "node:test";
import { Arrivals, type Item } from "../src/delivery.js";
import { compare } from "../src/ids.js";

const note = (id: string, fields: object = {}) => ({ type: "notification", id, ...fields });
const next = (arrivals: Arrivals) => arrivals.queue.shift() as Item;
const ids = (arrivals: Arrivals) => arrivals.queue.map(({ message }) => message.id);

test("ids compare by their two numbers", () => {
  assert.ok(compare("9-0", "10-0") < 0);
  assert.ok(compare("10-10", "10-9") > 0);
  assert.equal(compare("1764000000123-4", "1764000000123-4"), 0);
});

test("what came before is skipped, in each feed apart", () => {
  const arrivals = new Arrivals();
  assert.equal(arrivals.take(note("5-0")), "handle");
  assert.equal(arrivals.take(note("5-0")), "skip");
  assert.equal(arrivals.take(note("4-0")), "skip");
  assert.equal(arrivals.take(note("5-0", { broadcast: true })), "handle");
  assert.equal(arrivals.take(note("5-0", { topic: "a" })), "handle");
  assert.equal(arrivals.take(note("5-0", { topic: "b" })), "handle");
  assert.equal(arrivals.queue.length, 4);
});

test("what has no id always passes", () => {
  const arrivals = new Arrivals();
  const message = { type: "notification", topic: "a", ephemeral: true };
  assert.deepEqual([arrivals.take(message), arrivals.take(message)], ["handle", "handle"]);
});

test("what was handled and comes again is acknowledged again", () => {
  const arrivals = new Arrivals();
  arrivals.take(note("1-0"));
  const item = next(arrivals);
  assert.equal(arrivals.take(note("1-0")), "skip", "its handlers are not done");
  arrivals.done(item);
  assert.equal(arrivals.take(note("1-0", { attempt: 2 })), "ack");
});

test("what a handler failed on comes again, and all behind it, in order", () => {
  const arrivals = new Arrivals();
  for (const id of ["1-0", "2-0", "3-0"]) arrivals.take(note(id));
  arrivals.take(note("9-0", { topic: "a" }));
  arrivals.done(next(arrivals));
  arrivals.fail(next(arrivals));
  assert.deepEqual(ids(arrivals), ["9-0"], "other feeds go on");
  assert.equal(arrivals.take(note("4-0")), "skip", "it comes again behind the failed one");
  assert.equal(arrivals.take(note("1-0", { attempt: 2 })), "ack");
  for (const id of ["2-0", "3-0", "4-0"]) {
    assert.equal(arrivals.take(note(id, id < "4" ? { attempt: 2 } : {})), "handle");
  }
  assert.deepEqual(ids(arrivals), ["9-0", "2-0", "3-0", "4-0"]);
});

test("a new connection brings what a handler failed on without an attempt", () => {
  const arrivals = new Arrivals();
  arrivals.take(note("1-0"));
  arrivals.fail(next(arrivals));
  arrivals.connected();
  assert.equal(arrivals.take(note("1-0")), "handle");
});

test("a failure on what is not acknowledged holds nothing up", () => {
  const arrivals = new Arrivals();
  arrivals.take(note("1-0", { topic: "a" }));
  arrivals.take(note("2-0", { topic: "a" }));
  arrivals.fail(next(arrivals));
  assert.deepEqual(ids(arrivals), ["2-0"]);
});

test("after a reset the ids of that feed may come again", () => {
  const arrivals = new Arrivals();
  arrivals.take(note("5-0"));
  arrivals.take(note("5-0", { topic: "a" }));
  arrivals.reset({ type: "gap", reason: "reset", topic: "a" });
  assert.equal(arrivals.take(note("5-0")), "skip");
  assert.equal(arrivals.take(note("1-0", { topic: "a" })), "handle");
});

test("what was taken in before a reset says nothing of what comes after it", () => {
  const arrivals = new Arrivals();
  arrivals.take(note("5-0"));
  const old = next(arrivals);
  arrivals.reset({ type: "gap", reason: "reset" });
  arrivals.take(note("1-0"));
  arrivals.done(old);
  assert.equal(arrivals.take(note("1-0")), "skip", "it is not handled yet");
});

test("what is withdrawn before it was handled is not handled", () => {
  const arrivals = new Arrivals();
  arrivals.take(note("1-0"));
  arrivals.take(note("2-0"));
  arrivals.take(note("1-0", { topic: "a" }));
  arrivals.withdraw("1-0");
  assert.deepEqual(ids(arrivals), ["2-0", "1-0"]);
});

test("an acknowledgement is due once, and never for a topic", () => {
  const arrivals = new Arrivals();
  arrivals.take(note("1-0"));
  arrivals.take(note("2-0"));
  arrivals.take(note("3-0", { topic: "a" }));
  const [first, second, topic] = arrivals.queue as [Item, Item, Item];
  assert.equal(arrivals.ack(second), true);
  assert.equal(arrivals.ack(second), false);
  assert.equal(arrivals.ack(first), false, "it is cumulative");
  assert.equal(arrivals.ack(topic), false);
});
