import assert from "node:assert/strict";
import test from "node:test";

import { Kept } from "../../../pushsvc/admin/console/storage.js";

class Storage {
  #values = new Map();
  getItem(key) { return this.#values.get(key) ?? null; }
  setItem(key, value) { this.#values.set(key, value); }
  removeItem(key) { this.#values.delete(key); }
}

function holding(descriptor) {
  Object.defineProperty(globalThis, "pretended", { configurable: true, ...descriptor });
}

const refused = () => { throw new DOMException("denied", "SecurityError"); };

test("what is kept is there for the next page", () => {
  holding({ value: new Storage() });
  new Kept("pretended", "a").set("1");
  assert.equal(new Kept("pretended", "a").get(), "1");
  assert.equal(new Kept("pretended", "b").get(), null);
  new Kept("pretended", "a").set(null);
  assert.equal(new Kept("pretended", "a").get(), null);
});

for (const [how, descriptor] of [
  ["that is blocked", { get: refused }],
  ["that is not there", { value: null }],
  ["that takes nothing", { value: { getItem: () => null, setItem: refused, removeItem: refused } }],
]) {
  test(`with a storage ${how} a value lasts as long as the page`, () => {
    holding(descriptor);
    const kept = new Kept("pretended", "a");
    assert.equal(kept.get(), null);
    kept.set("1");
    assert.equal(kept.get(), "1");
    kept.set(null);
    assert.equal(kept.get(), null);
  });
}
