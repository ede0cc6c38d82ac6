import assert from "node:assert/strict";
import { test } from "node:test";
import { Inbox, type Item } from "../src/delivery.js";
import { compare } from "../src/ids.js";

const note = (id: string, fields: object = {}) => ({ type: "notification", id, ...fields });
const next = (inbox: Inbox) => inbox.queue.shift() as Item;
const ids = (inbox: Inbox) => inbox.queue.map(({ message }) => message.id);

test("ids compare by their two numbers", () => {
  assert.ok(compare("9-0", "10-0") < 0);
  assert.ok(compare("10-10", "10-9") > 0);
  assert.equal(compare("1764000000123-4", "1764000000123-4"), 0);
});

test("what came before is skipped, in each feed apart", () => {
  const inbox = new Inbox();
  assert.equal(inbox.take(note("5-0")), "handle");
  assert.equal(inbox.take(note("5-0")), "skip");
  assert.equal(inbox.take(note("4-0")), "skip");
  assert.equal(inbox.take(note("5-0", { broadcast: true })), "handle");
  assert.equal(inbox.take(note("5-0", { topic: "a" })), "handle");
  assert.equal(inbox.take(note("5-0", { topic: "b" })), "handle");
  assert.equal(inbox.queue.length, 4);
});

test("what has no id always passes", () => {
  const inbox = new Inbox();
  const message = { type: "notification", topic: "a", ephemeral: true };
  assert.deepEqual([inbox.take(message), inbox.take(message)], ["handle", "handle"]);
});

test("what was handled and comes again is acknowledged again", () => {
  const inbox = new Inbox();
  inbox.take(note("1-0"));
  const item = next(inbox);
  assert.equal(inbox.take(note("1-0")), "skip", "its handlers are not done");
  inbox.done(item);
  assert.equal(inbox.take(note("1-0", { attempt: 2 })), "ack");
});

test("what a handler failed on comes again, and all behind it, in order", () => {
  const inbox = new Inbox();
  for (const id of ["1-0", "2-0", "3-0"]) inbox.take(note(id));
  inbox.take(note("9-0", { topic: "a" }));
  inbox.done(next(inbox));
  inbox.fail(next(inbox));
  assert.deepEqual(ids(inbox), ["9-0"], "other feeds go on");
  assert.equal(inbox.take(note("4-0")), "skip", "it comes again behind the failed one");
  assert.equal(inbox.take(note("1-0", { attempt: 2 })), "ack");
  for (const id of ["2-0", "3-0", "4-0"]) {
    assert.equal(inbox.take(note(id, id < "4" ? { attempt: 2 } : {})), "handle");
  }
  assert.deepEqual(ids(inbox), ["9-0", "2-0", "3-0", "4-0"]);
});

test("a new connection brings what a handler failed on without an attempt", () => {
  const inbox = new Inbox();
  inbox.take(note("1-0"));
  inbox.fail(next(inbox));
  inbox.connected();
  assert.equal(inbox.take(note("1-0")), "handle");
});

test("a failure on what is not acknowledged holds nothing up", () => {
  const inbox = new Inbox();
  inbox.take(note("1-0", { topic: "a" }));
  inbox.take(note("2-0", { topic: "a" }));
  inbox.fail(next(inbox));
  assert.deepEqual(ids(inbox), ["2-0"]);
});

test("after a reset the ids of that feed may come again", () => {
  const inbox = new Inbox();
  inbox.take(note("5-0"));
  inbox.take(note("5-0", { topic: "a" }));
  inbox.reset({ type: "gap", reason: "reset", topic: "a" });
  assert.equal(inbox.take(note("5-0")), "skip");
  assert.equal(inbox.take(note("1-0", { topic: "a" })), "handle");
});

test("what was taken in before a reset says nothing of what comes after it", () => {
  const inbox = new Inbox();
  inbox.take(note("5-0"));
  const old = next(inbox);
  inbox.reset({ type: "gap", reason: "reset" });
  inbox.take(note("1-0"));
  inbox.done(old);
  assert.equal(inbox.take(note("1-0")), "skip", "it is not handled yet");
});

test("what is withdrawn before it was handled is not handled", () => {
  const inbox = new Inbox();
  inbox.take(note("1-0"));
  inbox.take(note("2-0"));
  inbox.take(note("1-0", { topic: "a" }));
  inbox.withdraw("1-0");
  assert.deepEqual(ids(inbox), ["2-0", "1-0"]);
});

test("an acknowledgement is due once, and never for a topic", () => {
  const inbox = new Inbox();
  inbox.take(note("1-0"));
  inbox.take(note("2-0"));
  inbox.take(note("3-0", { topic: "a" }));
  const [first, second, topic] = inbox.queue as [Item, Item, Item];
  assert.equal(inbox.ack(second), true);
  assert.equal(inbox.ack(second), false);
  assert.equal(inbox.ack(first), false, "it is cumulative");
  assert.equal(inbox.ack(topic), false);
});
