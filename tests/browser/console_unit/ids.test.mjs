import assert from "node:assert/strict";
import test from "node:test";

import { following, idTime, reaches } from "../../../pushsvc/admin/console/ids.js";

test("an id tells when it was given", () => {
  assert.equal(idTime("1764000000123-0"), 1764000000123);
  for (const none of ["", "x", "1764000000123", "1-", "1-2-3", undefined, null]) assert.equal(idTime(none), null);
});

test("ids are compared as two numbers, not as text", () => {
  assert.ok(reaches("10-0", "9-5"));
  assert.ok(reaches("10-10", "10-9"));
  assert.ok(reaches("10-9", "10-9"));
  assert.ok(!reaches("10-9", "10-10"));
});

test("the next id holds no other between", () => {
  assert.equal(following("10-9"), "10-10");
  assert.equal(following("10-18446744073709551614"), "10-18446744073709551615");
});
