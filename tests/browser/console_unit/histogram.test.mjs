import assert from "node:assert/strict";
import test from "node:test";

import { difference, merge, quantile } from "../../../pushsvc/admin/console/histogram.js";

const bounds = [0.01, 0.1, 1];

test("what came between two readings is their difference", () => {
  const after = { bounds, counts: [5, 9, 10, 10] };
  assert.deepEqual(difference(after, { bounds, counts: [1, 2, 3, 3] }), { bounds, counts: [4, 7, 7, 7] });
});

test("a count that fell, or other buckets, make no difference: the process is another one", () => {
  assert.equal(difference({ bounds, counts: [1, 1, 1, 1] }, { bounds, counts: [0, 0, 0, 2] }), null);
  assert.equal(difference({ bounds, counts: [1, 1, 1, 1] }, { bounds: [], counts: [0] }), null);
});

test("histograms of several nodes add up; empty ones and those with other bounds are left out", () => {
  const one = { bounds, counts: [1, 2, 3, 4] };
  const other = { bounds: [1, 2, 3], counts: [9, 9, 9, 9] };
  assert.deepEqual(merge([null, { bounds: [], counts: [0] }, one, other, one]), { bounds, counts: [2, 4, 6, 8] });
  assert.deepEqual(one.counts, [1, 2, 3, 4]);
  assert.equal(merge([null]), null);
});

test("a quantile is linear within its bucket", () => {
  const histogram = { bounds, counts: [50, 100, 100, 100] };
  assert.equal(quantile(histogram, 0.25), 0.005);
  assert.equal(quantile(histogram, 0.5), 0.01);
  assert.ok(Math.abs(quantile(histogram, 0.75) - 0.055) < 1e-12);
});

test("beyond the last bound a quantile is that bound, and of nothing it is null", () => {
  assert.equal(quantile({ bounds, counts: [0, 0, 0, 7] }, 0.5), 1);
  assert.equal(quantile({ bounds, counts: [0, 0, 0, 0] }, 0.5), null);
  assert.equal(quantile(null, 0.5), null);
});
