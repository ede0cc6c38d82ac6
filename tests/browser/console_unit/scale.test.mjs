import assert from "node:assert/strict";
import test from "node:test";

import { nearest, niceTop, path, place } from "../../../pushsvc/admin/console/scale.js";

test("the top of an axis is a round number that holds the value", () => {
  for (const [value, top] of [[0, 1], [0.7, 0.8], [1, 1], [3.2, 4], [41, 50], [98_000, 100_000], [0.0021, 0.0025]]) {
    assert.ok(Math.abs(niceTop(value).top - top) < 1e-9, `${value}`);
  }
  assert.equal(niceTop(1, 4).top, 4);
});

test("a hole breaks the line, and a lone point is drawn as a dot", () => {
  assert.equal(path([[0, 1], [2, 3], null, [4, 5], null]), "M0.0 1.0L2.0 3.0M4.0 5.0h0");
  assert.equal(path([null, [1, 1]]), "M1.0 1.0h0");
  assert.equal(path([]), "");
});

test("a value is placed between two ends, and the nearest moment is found", () => {
  assert.equal(place(5, 0, 10, 100, 200), 150);
  assert.equal(nearest([{ at: 1 }, { at: 4 }, { at: 9 }], 6), 1);
  assert.equal(nearest([], 6), -1);
});
