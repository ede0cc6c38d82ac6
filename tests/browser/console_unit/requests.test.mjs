import assert from "node:assert/strict";
import test from "node:test";

import { notificationOf, revocationOf, wrongName } from "../../../pushsvc/admin/console/requests.js";

const filled = { to: "user", name: "u1", event: "", ttl: "", data: "{}" };

test("a notification holds what was filled in, and nothing else", () => {
  assert.deepEqual(notificationOf(filled), { body: { to: { user: "u1" }, data: {} } });
  assert.deepEqual(notificationOf({ ...filled, to: "broadcast", name: "", event: "e.f", ttl: "0", data: "null" }),
    { body: { to: { broadcast: true }, data: null, event: "e.f", ttl: 0 } });
});

test("each field that is wrong says so", () => {
  const { errors } = notificationOf({ to: "topic", name: "a b", event: "é", ttl: "soon", data: "{" });
  assert.deepEqual(Object.keys(errors), ["name", "event", "ttl", "data"]);
  assert.match(errors.data, /not JSON/);
});

test("a name is what the service takes for one, by its bytes", () => {
  for (const name of ["auth0|507f", "a b", " a", "a/b", "Jörg", "\u{1f469}\u200d\u{1f4bb}", "é".repeat(128)]) {
    assert.equal(wrongName("user", name), undefined, name);
  }
  for (const name of ["", "a\n", "a\u0085", "\ud800", "a".repeat(257), "é".repeat(129)]) {
    assert.ok(wrongName("user", name), JSON.stringify(name));
  }
  for (const name of ["a/b", "a#b", "Jörg"]) assert.equal(wrongName("topic", name), undefined, name);
  for (const name of ["a b", "a.*", "a\u200bb", "a\u00a0b"]) assert.ok(wrongName("topic", name), JSON.stringify(name));
});

test("a revocation is of a user, of a token, or of all up to a time", () => {
  assert.deepEqual(revocationOf({ what: "user", user: "u1", days: "1" }), { body: { user: "u1", ttl: 86400 } });
  assert.deepEqual(revocationOf({ what: "jti", jti: "j", days: "7" }), { body: { jti: "j", ttl: 604800 } });
  assert.deepEqual(revocationOf({ what: "all", before: "2026-01-01T00:00", days: "1" }), { body: { issued_before: 1767225600, ttl: 86400 } });
});

test("a revocation of nothing is refused, above all one of everything without a time", () => {
  assert.ok(revocationOf({ what: "user", user: "", days: "1" }).errors.user);
  assert.ok(revocationOf({ what: "jti", jti: "", days: "1" }).errors.jti);
  assert.ok(revocationOf({ what: "all", before: "", days: "1" }).errors.before);
});
