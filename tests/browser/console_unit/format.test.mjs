import assert from "node:assert/strict";
import test from "node:test";

import { ago, amount, clock, count, duration, isolated, plural, pretty, stamp, visible } from "../../../pushsvc/admin/console/format.js";

test("durations are as short as they can be told", () => {
  const told = [
    [0, "0 ms"], [0.00042, "0.4 ms"], [0.0123, "12 ms"], [0.9999, "1 s"], [1.25, "1.3 s"], [9.97, "10 s"], [59.6, "1 min"],
    [125, "2 min 5 s"], [3600, "1 h"], [11520, "3 h 12 min"], [86400 * 5 + 4 * 3600, "5 d 4 h"], [-0.012, "−12 ms"], [null, "–"],
  ];
  for (const [seconds, words] of told) assert.equal(duration(seconds), words);
});

test("amounts keep a fraction only while it matters", () => {
  const told = [[0, "0"], [0.004, "0.004"], [0.34, "0.3"], [2, "2"], [12.34, "12.3"], [1234.5, "1,235"], [1_234_567, "1.2 M"], [null, "–"]];
  for (const [value, words] of told) assert.equal(amount(value), words);
  assert.equal(count(98765), "98,765");
  assert.equal(plural(1, "node"), "1 node");
  assert.equal(plural(1000, "node"), "1,000 nodes");
});

test("times are UTC, and relative ones look both ways", () => {
  const at = Date.parse("2026-11-22T19:35:24.123Z");
  assert.equal(clock(at), "19:35:24");
  assert.equal(stamp(at), "2026-11-22 19:35:24.123");
  assert.equal(ago(at, at + 400), "just now");
  assert.equal(ago(at, at + 34_000), "34 s ago");
  assert.equal(ago(at, at - 300_000), "in 5 min");
});

test("a name cannot reorder or hide what stands beside it", () => {
  assert.equal(isolated("auth0|a b"), "auth0|a b");
  assert.equal(isolated("\u05d0"), "\u2068\u05d0\u2069");
  assert.equal(isolated("a\u202eb\u2069"), "\u2068a\\u202eb\\u2069\u2069");
  assert.equal(visible("a\u2028\u{1f469}\u200d\u{1f4bb}"), "a\\u2028\u{1f469}\u200d\u{1f4bb}");
  assert.deepEqual(JSON.parse(pretty({ name: "a\u202e" })), { name: "a\u202e" });
  assert.ok(!pretty({ name: "a\u202e" }).includes("\u202e"));
});
