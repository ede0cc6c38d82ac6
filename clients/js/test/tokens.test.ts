import assert from "node:assert/strict";
import { test } from "node:test";
import { userOf } from "../src/tabs.js";
import { Tokens } from "../src/tokens.js";

test("a provider is asked only when a new token is needed, and told why", async () => {
  const asked: boolean[] = [];
  const tokens = new Tokens(({ refused }) => {
    asked.push(refused);
    return `t${asked.length}`;
  });
  assert.equal(await tokens.get(), "t1");
  assert.equal(await tokens.get(), "t1");
  tokens.renew();
  assert.equal(await tokens.get(), "t2");
  assert.equal(tokens.refused(), true);
  assert.equal(await tokens.get(), "t3");
  assert.equal(tokens.refused(), false, "the new one was refused as well");
  tokens.accepted();
  assert.equal(tokens.refused(), true, "it was good for a while");
  assert.deepEqual(asked, [false, false, true]);
});

test("what cannot be a token is told at once, and not sent", async () => {
  for (const token of ["eyJ…", "a token", "token\n"]) {
    assert.throws(() => new Tokens(token), /that no token has/);
    await assert.rejects(() => new Tokens(() => token).get(), /that no token has/);
  }
});

test("a token that a request was refused with is forgotten, and costs no attempt to connect", async () => {
  const asked: boolean[] = [];
  const tokens = new Tokens(({ refused }) => `t${asked.push(refused)}`);
  const first = await tokens.get();
  tokens.doubt(first);
  tokens.doubt(first);
  assert.equal(tokens.refused(), true, "the connection was refused with the same one");
  assert.equal(await tokens.get(), "t2");
  tokens.doubt(first);
  assert.equal(await tokens.get(), "t2", "that one is not in doubt");
  assert.equal(tokens.refused(), false, "the new one was refused as well");
  assert.deepEqual(asked, [false, true]);
});

test("a refusal that says how long to wait leaves the one new token that may be tried", async () => {
  const asked: boolean[] = [];
  const tokens = new Tokens(({ refused }) => `t${asked.push(refused)}`);
  for (const wait of [undefined, 8, 8, undefined]) {
    await tokens.get();
    assert.equal(tokens.refused(wait), true);
    tokens.renew();
  }
  await tokens.get();
  assert.equal(tokens.refused(), false);
  assert.deepEqual(asked, [false, true, true, true, true]);
  assert.equal(new Tokens("t").refused(8), false, "the only one is as old later");
});

test("a token that has expired is not tried again", async () => {
  let count = 0;
  const tokens = new Tokens(() => `t${++count}`);
  await tokens.get();
  tokens.accepted(Date.now() / 1000 - 1);
  assert.equal(await tokens.get(), "t2");
});

test("a token that is a string cannot be replaced", async () => {
  const tokens = new Tokens("t");
  assert.equal(await tokens.get(), "t");
  assert.equal(tokens.refused(), false);
});

test("the user is read from the token, and a token that is none has no user", () => {
  const claims = Buffer.from(JSON.stringify({ sub: "u~?1" })).toString("base64url");
  assert.equal(userOf(`x.${claims}.y`), "u~?1");
  assert.equal(userOf("opaque"), "");
});
