import assert from "node:assert/strict";
import { test } from "node:test";
import { Place } from "../src/place.js";

test("a topic whose state may be on its way is asked for from its state on again", () => {
  const place = new Place();
  assert.equal(place.since, undefined);
  assert.equal(place.answered("9-0"), true);
  assert.equal(place.since, undefined);
});

test("once something was answered behind it, what is published while away is not missed", () => {
  const place = new Place();
  place.answered("9-0");
  place.begun();
  assert.equal(place.since, "9-0");
});

test("what the next answer tells is not the place: what is up to there is still to come", () => {
  const place = new Place();
  place.answered("9-0");
  place.begun();
  assert.equal(place.answered("12-0"), false);
  place.begun();
  assert.equal(place.since, "9-0");
});

test("amid the state the place is what came", () => {
  const place = new Place();
  place.answered("9-0");
  place.came("4-0");
  place.begun();
  assert.equal(place.since, "4-0");
  place.came("10-0");
  place.came("9-5");
  assert.equal(place.since, "10-0");
});

test("an empty topic has no state, so all of it is wanted", () => {
  const place = new Place();
  assert.equal(place.answered("0-0"), false);
  assert.equal(place.since, "0-0");
});

test("what the application asked for is the place until something comes", () => {
  const place = new Place("7-0");
  assert.equal(place.answered("9-0"), false);
  assert.equal(place.since, "7-0");
});

test("after a reset the topic is wanted from its beginning", () => {
  const place = new Place("7-0");
  place.reset();
  assert.equal(place.since, "0-0");
  place.came("1-0");
  assert.equal(place.since, "1-0");
});
