import assert from "node:assert/strict";
import { test } from "node:test";
import { counted, LABELS } from "../src/bell/labels.js";
import { link } from "../src/bell/links.js";
import { words } from "../src/bell/times.js";

const SECOND = 1000;
const MINUTE = 60 * SECOND;
const HOUR = 60 * MINUTE;
const DAY = 24 * HOUR;
const NOW = +new Date(2026, 0, 31, 12);

test("how long ago it was is said in the largest unit that is full, up to a week", () => {
  const { ago } = words("en");
  const said = (age: number) => ago(NOW - age, NOW);
  assert.equal(said(0), "now");
  assert.equal(said(59 * SECOND), "now");
  assert.equal(said(MINUTE), "1 minute ago");
  assert.equal(said(HOUR - 1), "59 minutes ago");
  assert.equal(said(HOUR), "1 hour ago");
  assert.equal(said(DAY - 1), "23 hours ago");
  assert.equal(said(DAY), "yesterday");
  assert.equal(said(36 * HOUR + 1), "2 days ago", "as it was before the night, too");
  assert.equal(said(6 * DAY), "6 days ago");
  assert.equal(said(7 * DAY - 1), "Jan 24, 2026");
});

test("what comes from a clock that is ahead comes now", () => {
  assert.equal(words("en").ago(NOW + HOUR, NOW), "now");
});

test("times and counts are written in any language, and what is none is taken for none", () => {
  assert.equal(words("de-AT").ago(NOW - MINUTE, NOW), "vor 1 Minute");
  assert.equal(words("ar-EG").count(12), "١٢");
  for (const none of ["no language", "x", "", undefined]) {
    assert.match(words(none).ago(NOW - MINUTE, NOW), /1/);
  }
});

test("a count goes as far as a badge has room", () => {
  const { count } = words("en");
  assert.deepEqual([0, 99, 100, 12_345].map(count), ["0", "99", "99+", "99+"]);
});

test("a label takes the form that its count needs", () => {
  const russian = { one: "{n} новое", few: "{n} новых", many: "{n} новых", other: "{n} нового" };
  assert.equal(counted(russian, 21, words("ru")), "21 новое");
  assert.equal(counted(russian, 5, words("ru")), "5 новых");
  assert.equal(counted({ other: "{n}" }, 1, words("en")), "1");
  assert.equal(counted({ one: "{n} new" } as never, 3, words("en")), "3");
  assert.equal(counted(LABELS.unread, 3, words("en")), "3 unread");
});

test("only addresses of the web are followed, relative ones from where the page is", () => {
  const base = "https://shop.example/orders/";
  assert.equal(link("https://example.com/a", base), "https://example.com/a");
  assert.equal(link("http://example.com/", base), "http://example.com/");
  assert.equal(link("//example.com/", base), "https://example.com/");
  assert.equal(link("/17", base), "https://shop.example/17");
  assert.equal(link("17?a=1#b", base), "https://shop.example/orders/17?a=1#b");
  const refused = [
    "javascript:alert(1)",
    "\u0000javascript:alert(1)",
    "java\tscript:alert(1)",
    "data:text/html,x",
    "blob:https://shop.example/1",
    "file:///etc/passwd",
    "mailto:ann@example.com",
    "https://",
    "",
    17,
    null,
    undefined,
    ["/17"],
    { toString: () => "/17" },
  ];
  for (const url of refused) assert.equal(link(url, base), undefined, String(url));
  assert.equal(link("/17", "about:blank"), undefined);
});
