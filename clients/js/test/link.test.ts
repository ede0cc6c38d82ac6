import assert from "node:assert/strict";
import { test } from "node:test";
import { placeIn, places } from "../src/transports/link.js";

const TOPICS = ["scores.nba", "a/b", "a=b", "a:b@c", "100%", "%2F", "a,b", "Jörg", "it's", "~(!)"];

test("a position names any topic, and tells where it is in each", () => {
  const position = places(new Map(TOPICS.map((topic, i) => [topic, `${i}-7`])));
  assert.ok(/^[\x21-\x7e]*$/.test(position));
  TOPICS.forEach((topic, i) => assert.equal(placeIn(`u=9-9,${position},b=8-8`, topic), `${i}-7`));
});

test("a position that says nothing of a topic is its beginning", () => {
  for (const position of ["", "u=1-0", "t:a=b=1-0", "t:ab=1-0"]) {
    assert.equal(placeIn(position, "a"), "0-0");
  }
  assert.equal(placeIn("t:a%2Fb=5-1", "a/b"), "5-1");
  assert.equal(places(new Map([["a", undefined]])), "");
});

test("a position writes the plain names of a topic as nodes of before read them", () => {
  const position = places(
    new Map([
      ["room:42", "5-1"],
      ["a=b@c", "6-1"],
      ["a/b:c", "7-1"],
    ]),
  );
  assert.equal(position, "t:room:42=5-1,t:a=b@c=6-1,t:a%2Fb:c=7-1");
});
