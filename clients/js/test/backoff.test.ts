import assert from "node:assert/strict";
import { test } from "node:test";
import { fallsBack, jitter, judge } from "../src/backoff.js";

test("close codes decide by their range", () => {
  for (const code of ["1000", "1001", "1006", "1009", "4001", "4008", "4499", "5000", "lost"]) {
    assert.equal(judge({ code, status: undefined }), "retry", code);
  }
  for (const code of ["4500", "4501", "4505", "4999"]) {
    assert.equal(judge({ code, status: undefined }), "stop", code);
  }
  assert.equal(judge({ code: "4100", status: undefined }), "renew");
});

test("refusals decide by their status", () => {
  assert.equal(judge({ code: "invalid_token", status: 401 }), "refused");
  for (const status of [400, 403, 426]) assert.equal(judge({ code: "x", status }), "stop");
  for (const status of [404, 429, 500, 502, 503]) {
    assert.equal(judge({ code: "x", status }), "retry");
  }
});

test("the random delay doubles with each failure, up to a bound, from zero on", () => {
  assert.equal(jitter(0, 1000, 30_000, 1), 1000);
  assert.equal(jitter(3, 1000, 30_000, 1), 8000);
  assert.equal(jitter(3, 1000, 30_000, 0.25), 2000);
  assert.equal(jitter(500, 1000, 30_000, 1), 30_000);
  assert.equal(jitter(7, 1000, 30_000, 0), 0);
});

test("who had a socket stays with sockets for a while; who never had one falls back at once", () => {
  assert.equal(fallsBack(false, 1), true);
  assert.equal(fallsBack(true, 1), false);
  assert.equal(fallsBack(true, 4), false);
  assert.equal(fallsBack(true, 5), true);
});
