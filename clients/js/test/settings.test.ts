import assert from "node:assert/strict";
import { test } from "node:test";
import { connect } from "../src/index.js";
import { settings } from "../src/settings.js";

const urlOf = (url: string | URL) => settings({ url, token: "t" }, undefined).url;

test("an address without a scheme, or with another one, is refused with what to write", () => {
  const wrong = [
    "push.example.com",
    "localhost:8080",
    "127.0.0.1:8080",
    "//push.example.com",
    "push/here",
    "ftp://push.example.com",
    "http:push.example.com",
    "https://",
    "http:///push",
    "http://push example.com",
    "https://push.example.com?a=b",
    "https://push.example.com/#here",
    "",
  ];
  for (const url of wrong) {
    assert.throws(() => connect({ url, token: "t" }), {
      name: "TypeError",
      message:
        "connect needs a url such as https://push.example.com or http://localhost:8080, " +
        `not "${url}"`,
    });
  }
  assert.throws(() => connect({ token: "t" }), /connect needs a url/);
});

test("an address may have a port and a path, and the scheme of either protocol", () => {
  assert.equal(urlOf("https://push.example.com/"), "https://push.example.com");
  assert.equal(urlOf("http://localhost:8080"), "http://localhost:8080");
  assert.equal(urlOf("wss://push.example.com/push//"), "https://push.example.com/push");
  assert.equal(urlOf("WS://[::1]:8080"), "http://[::1]:8080");
  assert.equal(urlOf(new URL("HTTPS://Push.Example.com")), "https://push.example.com");
});

test("a path is one of the page's own origin, where there is a page", () => {
  assert.throws(() => urlOf("/push"), /not "\/push"/);
  Object.assign(globalThis, { location: { origin: "https://app.example.com" } });
  try {
    assert.equal(urlOf("/push/"), "https://app.example.com/push");
    assert.equal(urlOf("/"), "https://app.example.com");
    assert.throws(() => urlOf("//push.example.com"), TypeError);
    assert.throws(() => urlOf("push"), TypeError);
  } finally {
    Reflect.deleteProperty(globalThis, "location");
  }
});

test("a client without a token is refused at once", () => {
  const options = { url: "http://127.0.0.1:9" } as { url: string; token: string };
  assert.throws(() => connect(options), /connect needs a token/);
  assert.throws(() => connect({ ...options, token: "" }), /connect needs a token/);
});
