import assert from "node:assert/strict";
import test from "node:test";

import { feedWords, statusOf, summary, timeline, verdict } from "../../../pushsvc/admin/console/timeline.js";

const START = Date.parse("2026-11-22T19:00:00.000Z");
const after = (milliseconds) => new Date(START + milliseconds).toISOString();
const trace = (more) => ({ id: `${START}-0`, feed: { user: "u1" }, notification: {}, status: "sent", steps: [], devices: [], ...more });

test("the summary tells of each device what it did, and when", () => {
  const told = summary(trace({
    steps: [{ time: after(0), what: "accepted" }],
    devices: [
      { device: "phone", status: "acked", time: after(34) },
      { device: "laptop", status: "sent", time: after(58_000) },
      { device: "tablet", status: "offline", why: "not connected: it is sent when the device comes back, after 2 others" },
      { device: "watch", status: "waiting", why: "its window is full" },
    ],
  }), START + 60_000);
  assert.deepEqual(told, [
    "Acknowledged by phone 34 ms after it was accepted.",
    "laptop was sent it 2 s ago and has not acknowledged.",
    "tablet is offline: it is sent when the device comes back, after 2 others.",
    "For watch it waits: its window is full.",
  ]);
});

test("several devices with the same status are one sentence", () => {
  const devices = (status, ...times) => times.map((time, index) => ({ device: `d${index}`, status, time: time && after(time) }));
  const told = (...all) => summary(trace({ steps: [{ time: after(0), what: "accepted" }], devices: all }), START + 60_000);
  assert.deepEqual(told(...devices("acked", 34, 1200), ...devices("offline", null, null, null)), [
    "Acknowledged by 2 devices, the last 1.2 s after it was accepted.",
    "3 devices are offline: it waits for each.",
  ]);
  assert.deepEqual(told(...devices("acked", 34, null)), ["Acknowledged by 2 devices."]);
  assert.deepEqual(told(...devices("sent", 3, 4), ...devices("waiting", null, null), ...devices("paused", null, null)), [
    "2 devices were sent it and have not acknowledged.", "For 2 devices it waits.", "2 devices: paused.",
  ]);
  const [tv] = [{ device: "tv", status: "sent", time: after(50_000), why: "sent 3 times, not acknowledged" }];
  assert.deepEqual(told(tv), ["tv was sent it 10 s ago: sent 3 times, not acknowledged."]);
});

test("times that are not known any more are left out", () => {
  const devices = [{ device: "phone", status: "acked" }, { device: "tablet", status: "offline", time: null }];
  assert.deepEqual(summary(trace({ devices }), START), ["Acknowledged by phone.", "tablet is offline: it waits."]);
});

test("what the node has to say besides is part of the summary", () => {
  const note = "No node remembers this id.";
  assert.deepEqual(summary(trace({ feed: null, status: "unknown", note }), START), [note]);
  assert.match(summary(trace({ status: "expired", note })).join(" "), /time to live has passed.* No node/);
});

test("a summary without a device says where it ends", () => {
  const sent = { steps: [{ time: after(1), what: "sent" }] };
  assert.deepEqual(summary(trace({ feed: { topic: "t" }, ...sent }), START), ["Topics are not acknowledged: its way ends where it was sent."]);
  assert.match(summary(trace({ feed: { topic: "t" } }), START)[0], /^Nobody was subscribed/);
  assert.match(summary(trace({ feed: { broadcast: true } }), START)[0], /^Nobody was connected/);
  assert.match(summary(trace({}), START)[0], /not been sent to anyone/);
});

test("steps tell the time since the notification was accepted and since the step before", () => {
  const steps = [{ time: after(0), what: "accepted" }, { time: after(12), what: "sent" }, { time: after(34), what: "acked" }];
  assert.deepEqual(timeline(trace({ steps })).map(({ since, after: gap }) => [since, gap]), [[0, null], [0.012, 0.012], [0.034, 0.022]]);
});

test("without the first step the id says when it was accepted", () => {
  assert.equal(timeline(trace({ steps: [{ time: after(5), what: "sent" }] }))[0].since, 0.005);
});

test("a status that is new to the page is shown as it is", () => {
  assert.deepEqual(statusOf("paused"), { tone: "idle", words: "paused" });
  assert.equal(feedWords({ broadcast: true }), "everyone (broadcast)");
  assert.equal(feedWords(null), null);
});

test("of one that some devices have acknowledged it is told how many", () => {
  const devices = [{ device: "phone", status: "acked" }, { device: "tablet", status: "offline" }];
  assert.equal(verdict(trace({ devices })).words, "acknowledged by 1 of 2 devices");
  assert.equal(verdict(trace({ devices: [devices[1]] })).words, "sent, not acknowledged");
  assert.equal(verdict(trace({ devices, status: "expired" })).words, "expired");
  assert.equal(verdict(trace({ feed: { topic: "t" } })).words, "sent");
});
