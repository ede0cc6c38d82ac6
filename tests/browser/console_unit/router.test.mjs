import assert from "node:assert/strict";
import test from "node:test";

import { parse, tokenOf, traceHref, userHref } from "../../../pushsvc/admin/console/router.js";

test("an address names a view and what it shows", () => {
  assert.deepEqual(parse(""), { view: "overview" });
  assert.deepEqual(parse("#/"), { view: "overview" });
  assert.deepEqual(parse("#/user"), { view: "user" });
  assert.deepEqual(parse("#/user/u1"), { view: "user", user: "u1" });
  assert.deepEqual(parse("#/trace?id=1-0&user=u1"), { view: "trace", id: "1-0", user: "u1" });
  assert.deepEqual(parse("#/no-such-view"), { view: "overview" });
});

test("every name of a user comes back from its address", () => {
  for (const user of ["u1", "a@b.example:c=d", "A_b-c", "50%", "a/b?c#d", "..", "%2F", " a", "\u{1f469}\u200d\u{1f4bb}"]) {
    assert.deepEqual(parse(userHref(user)), { view: "user", user });
    assert.deepEqual(parse(traceHref("1-0", { user })), { view: "trace", id: "1-0", user });
  }
  assert.equal(traceHref("1-0"), "#/trace?id=1-0");
  assert.equal(traceHref("1-0", { broadcast: true }), "#/trace?id=1-0&broadcast=true");
});

test("what cannot be decoded is taken as it is", () => {
  assert.deepEqual(parse("#/user/%E0%A4%A"), { view: "user", user: "%E0%A4%A" });
});

test("a token is found in the address only where it is named", () => {
  assert.equal(tokenOf("#token=a.b.c"), "a.b.c");
  assert.equal(tokenOf("#/?token=a.b.c"), "a.b.c");
  assert.equal(tokenOf("#/user/token"), null);
  assert.equal(tokenOf(""), null);
});
