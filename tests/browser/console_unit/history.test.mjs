import assert from "node:assert/strict";
import test from "node:test";

import { History, rates, SPAN, sum, WINDOW } from "../../../pushsvc/admin/console/history.js";

const histogram = (count) => ({ bounds: [0.01, 0.1], counts: [count, count, count] });

function node(name, published, more = {}) {
  return {
    node: name, host: "h", pid: 1, started: `2026-01-01T00:00:00.000Z ${name}`, connections: 2,
    totals: { published }, latency: { deliver: histogram(published), ack: histogram(0) }, loop_lag: histogram(published), ...more,
  };
}

const overview = (...nodes) => ({ nodes });

test("the first reading gives no rate", () => {
  const point = new History().add(overview(node("a", 1000)), 0);
  assert.equal(point.rates, null);
  assert.equal(point.deliver.p50, null);
  assert.equal(point.connections, 2);
});

test("rates of all nodes add up", () => {
  const history = new History();
  history.add(overview(node("a", 0), node("b", 100)), 0);
  const point = history.add(overview(node("a", 20), node("b", 140)), 2);
  assert.equal(point.rates.published, 30);
  assert.equal(history.nodes.get("a").rates.published, 10);
  assert.equal(point.deliver.p50, 0.005);
});

test("a node that started anew gives no negative rate, whether it is known by its counters or by its start", () => {
  const history = new History();
  history.add(overview(node("a", 500), node("b", 500)), 0);
  const point = history.add(overview(node("a", 3), node("c", 4), node("b", 510)), 1);
  assert.equal(history.nodes.get("a").rates, null);
  assert.equal(history.nodes.get("c").rates, null);
  assert.equal(point.rates.published, 10);
});

test("a node that came back under a new id keeps its counters", () => {
  const history = new History();
  const started = "2026-01-01T00:00:00.000Z";
  history.add(overview(node("a", 10, { started })), 0);
  assert.equal(history.add(overview(node("b", 30, { started })), 2).rates.published, 10);
});

const told = (second) => ({ time: new Date(1000 * second).toISOString() });

test("the rate is by the time at which a node tells of itself, however it is asked", () => {
  const history = new History();
  const seen = [];
  for (const [asked, said] of [[1.9, 0.1], [2.9, 2.1], [3.9, 2.1], [4.2, 4.1], [6.9, 6.2], [8.1, 6.2]]) {
    seen.push(history.add(overview(node("a", 100 * said, told(said))), asked).rates?.published);
  }
  assert.deepEqual(seen.slice(1).map(Math.round), [100, 100, 100, 100, 100]);
});

test("a silent node is counted neither as busy nor as connected, and goes on when it speaks again", () => {
  const history = new History();
  history.add(overview(node("a", 0, told(0)), node("b", 0, told(0))), 0);
  history.add(overview(node("a", 20, told(2)), node("b", 40, told(2))), 2);
  const point = history.add(overview(node("a", 80, told(8)), node("b", 40, { ...told(2), silent: true })), 8);
  assert.equal(history.nodes.has("b"), false);
  assert.equal(point.rates.published, 10);
  assert.equal(point.connections, 2);
  assert.equal(history.add(overview(node("b", 60, told(10))), 10).rates.published, 2.5);
});

test("a clock that was set back begins anew", () => {
  const history = new History();
  history.add(overview(node("a", 0, told(100))), 100);
  assert.equal(history.add(overview(node("a", 10, told(90))), 101).rates, null);
  assert.equal(history.add(overview(node("a", 30, told(92))), 103).rates.published, 10);
});

test("after a pause longer than the window the rate is that of the pause", () => {
  const history = new History();
  history.add(overview(node("a", 0)), 0);
  history.add(overview(node("a", 10)), 1);
  assert.equal(history.add(overview(node("a", 10 + 5 * 10 * WINDOW)), 1 + 10 * WINDOW).rates.published, 5);
});

test("what is kept is bounded, and a missing answer is kept once", () => {
  const history = new History();
  for (let second = 0; second < 3 * SPAN; second += 1) history.add(overview(node("a", second)), second);
  assert.equal(history.points.length, SPAN);
  history.miss(3 * SPAN);
  history.miss(3 * SPAN + 1);
  assert.equal(history.points.filter((point) => point.missing).length, 1);
});

test("no time between two readings is no rate", () => {
  assert.equal(rates({ a: 1 }, { a: 0 }, 0), null);
  assert.equal(rates({ a: 1 }, { a: 0 }, -1), null);
  assert.deepEqual(rates({ a: 1, b: 4 }, { a: 0 }, 2), { a: 0.5, b: 2 });
  assert.equal(sum([]), null);
});
