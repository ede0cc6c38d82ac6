import assert from "node:assert/strict";
import { test } from "node:test";
import { reader } from "../src/transports/sse.js";

function read(...chunks: string[]): [string | undefined, string][] {
  const events: [string | undefined, string][] = [];
  const feed = reader((data, id) => events.push([data, id]));
  for (const chunk of chunks) feed(chunk);
  return events;
}

test("events are read however they are cut", () => {
  const text = 'id: u=1-0\ndata: {"a":1}\n\n:\n\nid: u=2-0\r\ndata: x\r\ndata:y\r\n\r\n';
  const whole = read(text).filter(([data]) => data !== undefined);
  assert.deepEqual(whole, [
    ['{"a":1}', "u=1-0"],
    ["x\ny", "u=2-0"],
  ]);
  assert.deepEqual(
    read(...text).filter(([data]) => data !== undefined),
    whole,
  );
});

test("an event that has an id only says so", () => {
  assert.deepEqual(read("id: u=1-0\n\n"), [[undefined, "u=1-0"]]);
});

test("a comment is no event", () => {
  assert.deepEqual(read("retry: 3000\n\n", ":\n\n", ":\n\n"), []);
  assert.deepEqual(read("id: u=1-0\ndata: 1\n\n", ":\n\n"), [["1", "u=1-0"]]);
});
