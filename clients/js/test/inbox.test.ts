import assert from "node:assert/strict";
import { test } from "node:test";
import { compare } from "../src/ids.js";
import { type Ask, type Change, InboxModel, type Mark } from "../src/inbox.js";
import type { InboxItem, InboxQuery, InboxSnapshot, ServerMessage } from "../src/types.js";

const FIRST: InboxSnapshot = { items: [], unread: 0, state: "loading", more: false };
const TIME = "2026-01-01T00:00:00.000Z";
const UP = { status: "connected" } as const;

const kept = (id: string, more: Partial<InboxItem> = {}): InboxItem =>
  ({ id, time: TIME, data: id, read: false, archived: false, ...more }) as InboxItem;
const note = (id: string, more = {}): ServerMessage =>
  ({ type: "notification", id, time: TIME, data: id, ...more }) as ServerMessage;
const ids = ({ items }: InboxSnapshot) => items.map(({ id }) => id);
const read = ({ items }: InboxSnapshot) => items.filter((item) => item.read).map(({ id }) => id);

function opened(query: InboxQuery, items: InboxItem[], next: string | null = null): InboxModel {
  const model = new InboxModel(query, FIRST);
  model.connection(UP);
  model.listing();
  const unread = items.filter((item) => !item.read).length;
  assert.equal(model.listed({ notifications: items, unread, next }), undefined);
  return model;
}

test("it is loading until a list came, and offline while there is no connection", () => {
  const model = new InboxModel({}, FIRST);
  assert.equal(model.snapshot, FIRST);
  model.connection({ status: "connecting" });
  assert.equal(model.snapshot, FIRST);
  assert.equal(model.heard({ type: "welcome", unread: 2 }), "list");
  assert.equal(model.snapshot.unread, 2, "which the welcome tells");
  model.listing();
  model.listed({ notifications: [kept("1-0")], unread: 1, next: null });
  assert.deepEqual([model.snapshot.state, model.snapshot.unread], ["ready", 1]);
  const error = new Error("gone") as never;
  model.connection({ status: "waiting", error });
  assert.deepEqual([model.snapshot.state, model.snapshot.error], ["offline", error]);
  model.connection({ status: "connecting" });
  assert.equal(model.snapshot.state, "offline");
  assert.deepEqual(ids(model.snapshot), ["1-0"], "what it knows stays");
  model.connection(UP);
  assert.deepEqual([model.snapshot.state, model.snapshot.error], ["ready", undefined]);
});

test("a list that is refused is an error until one comes; so is the end of a client", () => {
  const model = opened({}, [kept("1-0")]);
  const error = new Error("no") as never;
  model.failed(error);
  assert.deepEqual([model.snapshot.state, model.snapshot.error], ["error", error]);
  model.listing();
  model.listed({ notifications: [kept("1-0")], unread: 1, next: null });
  assert.deepEqual([model.snapshot.state, model.snapshot.error], ["ready", undefined]);
  model.connection({ status: "closed" });
  assert.equal(model.snapshot.state, "error", "nothing comes any more");
  model.connection({ status: "closed", error });
  assert.deepEqual([model.snapshot.state, model.snapshot.error], ["error", error]);
});

test("a snapshot, and each item of it, is the same object until it changes", () => {
  const model = opened({}, [kept("2-0"), kept("1-0")]);
  const before = model.snapshot;
  assert.equal(model.snapshot, before);
  model.heard({ type: "pong" });
  model.heard(note("9-0", { topic: "a" }));
  model.listing();
  model.listed({ notifications: [kept("2-0"), kept("1-0")], unread: 2, next: null });
  assert.equal(model.snapshot, before, "the same is listed again");
  assert.ok(Object.isFrozen(before) && Object.isFrozen(before.items));
  model.heard({ type: "read", ids: ["2-0"], unread: 1 });
  const after = model.snapshot;
  assert.notEqual(after, before);
  assert.deepEqual(read(after), ["2-0"]);
  assert.deepEqual(read(before), [], "what was shown does not change");
  assert.equal(after.items[1], before.items[1]);
});

test("each kind of change, told and one's own, leads to the same state", () => {
  const all = {
    unread: kept("1-0"),
    read: kept("1-0", { read: true }),
    archived: kept("1-0", { read: true, archived: true }),
  };
  const expected: Record<Mark, Record<keyof typeof all, keyof typeof all>> = {
    read: { unread: "read", read: "read", archived: "archived" },
    unread: { unread: "unread", read: "unread", archived: "unread" },
    archive: { unread: "archived", read: "archived", archived: "archived" },
    unarchive: { unread: "unread", read: "read", archived: "read" },
  };
  for (const type of Object.keys(expected) as Mark[]) {
    for (const from of Object.keys(all) as (keyof typeof all)[]) {
      for (const own of [false, true]) {
        for (const archived of [false, true]) {
          const model = opened({ archived }, [all[from]]);
          if (own) model.begin({ type, ids: ["1-0"] });
          else model.heard({ type, ids: ["1-0"] });
          const to = all[expected[type][from]];
          const what = `${from} ${type} ${own} ${archived}`;
          assert.deepEqual(model.snapshot.items, to.archived === archived ? [to] : [], what);
          assert.equal(model.snapshot.unread, Number(!to.read), what);
        }
      }
    }
  }
});

test("what is refused is taken back, and nothing else", () => {
  const model = opened({}, [kept("2-0"), kept("1-0")]);
  const first: Change = { type: "read", ids: ["1-0"] };
  const second: Change = { type: "archive", until: "2-0" };
  model.begin(first);
  model.begin(second);
  assert.deepEqual([ids(model.snapshot), model.snapshot.unread], [[], 0]);
  model.heard(note("3-0"));
  assert.deepEqual([ids(model.snapshot), model.snapshot.unread], [["3-0"], 1], "it came after it");
  assert.equal(model.counted(3, model.turns), undefined, "the server has done neither by now");
  model.end(second); // refused
  assert.deepEqual(ids(model.snapshot), ["3-0", "2-0", "1-0"]);
  assert.deepEqual([read(model.snapshot), model.snapshot.unread], [["1-0"], 2]);
  assert.equal(model.heard({ ...first, unread: 2, answered: true }), undefined);
  model.end(first); // done
  assert.deepEqual([read(model.snapshot), model.snapshot.unread], [["1-0"], 2]);
});

test("what came while a list was on its way is not undone by it", () => {
  const model = opened({}, [kept("1-0")]);
  model.listing();
  model.heard({ type: "read", ids: ["1-0"], unread: 0 });
  model.heard(note("2-0"));
  assert.equal(model.listed({ notifications: [kept("1-0")], unread: 1, next: null }), "count");
  assert.deepEqual([ids(model.snapshot), read(model.snapshot)], [["2-0", "1-0"], ["1-0"]]);
  model.listing();
  assert.equal(model.listed({ notifications: [], unread: 0, next: null }), undefined);
  assert.deepEqual(ids(model.snapshot), []);
});

test("a count that does not follow from what came asks for the list, if it is not older", () => {
  const model = opened({}, [kept("1-0")]);
  assert.equal(model.counted(1, model.turns), undefined);
  const { turns } = model;
  model.heard(note("2-0"));
  assert.equal(model.counted(1, turns), "count", "it may be older than the notification");
  assert.equal(model.snapshot.unread, 2);
  assert.equal(model.counted(1, model.turns), "list", "another has gone");
  assert.equal(model.heard({ type: "read", ids: [], unread: 1 }), undefined, "another tab's");
  assert.equal(model.heard({ type: "read", ids: [], unread: 5 }), "count");
});

test("what has an id that was seen, or no place in an inbox, changes nothing", () => {
  const model = opened({}, [kept("2-0", { read: true })]);
  const before = model.snapshot;
  for (const message of [
    note("2-0", { attempt: 2 }),
    note("1-0"),
    note("3-0", { topic: "a" }),
    note("3-0", { broadcast: true }),
    note("3-0", { inbox: false }),
    { type: "notification", data: 1, ephemeral: true },
    { type: "gap", topic: "a", reason: "reset" },
    { type: "presence", topic: "a" },
  ]) {
    assert.equal(model.heard(message), undefined);
  }
  assert.equal(model.snapshot, before);
});

test("a page of older ones is put behind what is there", () => {
  const model = opened({}, [kept("5-0"), kept("4-0")], "4-0");
  assert.ok(model.snapshot.more);
  model.listing();
  model.heard(note("6-0"));
  model.listed({ notifications: [kept("3-0"), kept("2-0")], unread: 5, next: null }, true);
  assert.deepEqual(ids(model.snapshot), ["6-0", "5-0", "4-0", "3-0", "2-0"]);
  assert.ok(!model.snapshot.more);
});

test("what a change makes of what is not known is asked for", () => {
  const model = opened({}, [kept("5-0"), kept("4-0")], "4-0");
  assert.equal(model.heard({ type: "read", ids: ["5-0"], unread: 3 }), "count");
  assert.equal(model.heard({ type: "unarchive", ids: ["5-0", "4-5"], unread: 3 }), "list");
  assert.equal(model.heard({ type: "read", until: "4-0", unread: 0 }), "count");
  assert.equal(model.heard({ type: "read", until: "3-0", unread: 0 }), "list");
  const archived = opened({ archived: true }, []);
  assert.equal(archived.heard({ type: "archive", ids: ["1-0"], unread: 0 }), "list");
  assert.equal(
    archived.heard({ type: "archive", ids: ["1-0"], unread: 0, answered: true }),
    "list",
  );
});

test("the first end that is still to come is known", () => {
  const at = (ms: number) => new Date(ms).toISOString();
  const model = opened({}, [
    kept("3-0", { expires: at(3000) }),
    kept("2-0"),
    kept("1-0", { expires: at(1000) }),
  ]);
  assert.equal(model.expiry(0), 1000);
  assert.equal(model.expiry(1000), 3000);
  assert.equal(model.expiry(3000), Infinity);
});

test("what came live ends with its ttl, and goes by the client's own clock", () => {
  const start = Date.parse(TIME);
  const model = opened({}, [kept("1-0")]);
  assert.equal(model.expire(start), undefined);
  model.heard(note("2-0", { ttl: 3 }));
  assert.equal(model.snapshot.items[0]?.expires, "2026-01-01T00:00:03.000Z");
  assert.equal(model.expiry(start), start + 3000);
  assert.equal(model.expire(start + 2999), undefined);
  const { turns } = model;
  assert.equal(model.expire(start + 3000), "count");
  assert.deepEqual([ids(model.snapshot), model.snapshot.unread], [["1-0"], 1]);
  assert.equal(model.counted(2, turns), "count", "it may be older than the end");
  assert.equal(model.counted(1, model.turns), undefined);
  assert.equal(model.expire(start + 3001), undefined);
});

test("what the server has is shown after its end by a clock that is ahead, until it is gone", () => {
  const start = Date.parse(TIME);
  const model = opened({}, []);
  model.expire(start + 60_000);
  model.heard(note("2-0", { ttl: 3, read: true }));
  assert.equal(model.expire(start + 60_001), "list", "only a list shows whether it is gone");
  assert.deepEqual(ids(model.snapshot), ["2-0"]);
  model.listing();
  model.listed({ notifications: [], unread: 0, next: null });
  assert.equal(model.expire(start + 60_002), undefined);
});

test("what comes live pushes out what no page was asked for", () => {
  const model = opened({ pageSize: 2 }, [kept("2-0"), kept("1-0")]);
  model.heard(note("3-0"));
  assert.deepEqual([ids(model.snapshot), model.snapshot.unread], [["3-0", "2-0"], 3]);
  assert.deepEqual([model.snapshot.more, model.next], [true, "2-0"]);
  model.listing();
  model.heard(note("4-0"));
  model.listed({ notifications: [kept("1-0")], unread: 4, next: null }, true);
  assert.deepEqual(ids(model.snapshot), ["4-0", "3-0", "2-0", "1-0"]);
  model.heard({ type: "archive", ids: ["3-0"], unread: 3 });
  model.heard(note("5-0"));
  assert.deepEqual(ids(model.snapshot), ["5-0", "4-0", "2-0", "1-0"]);
  model.heard(note("6-0"));
  assert.deepEqual(ids(model.snapshot), ["6-0", "5-0", "4-0", "2-0"]);
  for (let i = 7; i < 100; i++) model.heard(note(`${i}-0`));
  assert.deepEqual([model.size, model.snapshot.unread], [4, 98]);
});

// --- a model of all that can happen --------------------------------------------------------------

/** Numbers that look random, the same for the same seed. */
function dice(seed: number): (sides: number) => number {
  let state = seed;
  return (sides) => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return Math.floor((state / 2 ** 32) * sides);
  };
}

const AFTER: Record<Mark, (item: InboxItem) => InboxItem> = {
  read: (item) => ({ ...item, read: true }),
  unread: (item) => ({ ...item, read: false, archived: false }),
  archive: (item) => ({ ...item, read: true, archived: true }),
  unarchive: (item) => ({ ...item, archived: false }),
};

/** A server, a connection and what is under way, in an order that the dice decide. */
class World {
  /** Newest first. */
  kept: InboxItem[] = [];
  now = 0;
  readonly roll: (sides: number) => number;
  readonly model: InboxModel;
  readonly query: InboxQuery;
  due: Ask;
  /** What is on its way: in each of these, one after the other. */
  readonly socket: (() => void)[] = [];
  readonly sent: (() => void)[] = [];
  readonly lists: (() => void)[] = [];

  constructor(seed: number, query: InboxQuery) {
    this.roll = dice(seed);
    this.query = query;
    this.model = new InboxModel(query, FIRST);
    this.model.connection(UP);
    this.due = this.model.heard({ type: "welcome", unread: 0 });
  }

  get unread(): number {
    return this.kept.filter(({ read }) => !read).length;
  }

  get some(): InboxItem | undefined {
    return this.kept[this.roll(this.kept.length || 1)];
  }

  ask(what: Ask): void {
    if (this.due !== "list") this.due = what ?? this.due;
  }

  hear(message: ServerMessage): void {
    this.socket.push(() => this.ask(this.model.heard(message)));
  }

  carryOut({ type, ids, until }: Change): void {
    this.kept = this.kept.map((item) =>
      (ids ? ids.includes(item.id) : compare(item.id, until as string) <= 0)
        ? AFTER[type](item)
        : item,
    );
  }

  publish(event = this.roll(2) ? "a" : "b", signal = this.roll(6) === 0): void {
    const id = `${++this.now}-0`;
    if (!signal) this.kept.unshift(kept(id, { event }));
    this.hear(note(id, { event, ...(signal && { inbox: false }) }));
  }

  /** A newer one takes the place of an unread one: that is told to nobody. */
  collapse(): void {
    const { some } = this;
    if (!some || some.read) return;
    this.kept = this.kept.filter((item) => item !== some);
    this.publish(some.event, false);
  }

  recall(): void {
    const { some } = this;
    if (!some) return;
    this.kept = this.kept.filter((item) => item !== some);
    this.hear({ type: "withdrawn", id: some.id, reason: "recalled" });
  }

  change(): Change | undefined {
    const { some } = this;
    if (!some) return undefined;
    const type = (["read", "unread", "archive", "unarchive"] as const)[this.roll(4)] as Mark;
    const upTo = this.roll(4) === 0 && !/^un/.test(type);
    return upTo ? { type, until: some.id } : { type, ids: [some.id] };
  }

  elsewhere(): void {
    const change = this.change();
    if (!change) return;
    this.carryOut(change);
    this.hear({ ...change, unread: this.unread });
  }

  here(): void {
    const change = this.change();
    if (!change) return;
    this.model.begin(change);
    this.sent.push(() => {
      const refused = this.roll(4) === 0;
      if (!refused) this.carryOut(change);
      const { unread } = this;
      this.socket.push(() => {
        if (!refused) this.ask(this.model.heard({ ...change, unread, answered: true }));
        this.model.end(change);
      });
    });
  }

  reset(): void {
    this.kept = this.kept.filter(() => this.roll(2));
    this.hear({ type: "gap", reason: "reset", after: "0-0", unread: this.unread });
  }

  /** What the client is to ask for, it asks for. */
  asks(): void {
    if (this.due === "count") {
      const { turns } = this.model;
      this.due = undefined;
      this.sent.push(() => {
        const { unread } = this;
        this.socket.push(() => this.ask(this.model.counted(unread, turns)));
      });
    } else if (this.due === "list" && !this.lists.length) {
      this.due = undefined;
      this.list(false);
    }
  }

  older(): void {
    if (this.model.next && !this.lists.length) this.list(true);
  }

  list(older: boolean): void {
    const { model } = this;
    const before = older ? (model.next as string) : undefined;
    const limit = older ? 3 : Math.max(3, model.size);
    model.listing();
    this.lists.push(() => {
      const found = this.matching.filter(({ id }) => !before || compare(id, before) < 0);
      const page = found.slice(0, limit);
      const next = found.length > limit ? (page.at(-1)?.id as string) : null;
      const { unread } = this;
      this.lists.push(() => this.ask(model.listed({ notifications: page, unread, next }, older)));
    });
  }

  get matching(): InboxItem[] {
    const { event, archived = false } = this.query;
    return this.kept.filter(
      (item) => item.archived === archived && (event === undefined || item.event === event),
    );
  }

  /** Something of what is under way arrives. */
  arrive(): boolean {
    const ways = [this.socket, this.sent, this.lists].filter(({ length }) => length);
    const way = ways[this.roll(ways.length || 1)];
    way?.shift()?.();
    return !!way;
  }

  step(): void {
    const before = this.model.snapshot;
    assert.equal(this.model.snapshot, before);
    const does = [
      () => this.publish(),
      () => this.publish(),
      this.collapse,
      this.recall,
      this.elsewhere,
      this.elsewhere,
      this.here,
      this.here,
      this.asks,
      this.asks,
      this.older,
      ...Array<() => void>(8).fill(this.arrive),
      ...(this.roll(10) ? [] : [this.reset]),
    ];
    (does[this.roll(does.length)] as () => void).call(this);
    const { items, unread } = this.model.snapshot;
    assert.ok(unread >= 0);
    const shown = items.map(({ id }) => id);
    assert.deepEqual(
      shown,
      [...new Set(shown)].sort((a, b) => compare(b, a)),
      "in order, once",
    );
    for (const item of items) {
      const old = before.items.find(({ id }) => id === item.id);
      const same = old?.read === item.read && old.archived === item.archived;
      if (same) assert.equal(item, old, "the same item is the same object");
    }
  }

  settle(): number {
    let requests = 0;
    for (let i = 0; i < 1000; i++) {
      if (this.arrive()) continue;
      if (!this.due) return requests;
      requests++;
      this.asks();
    }
    throw new Error("it asks for ever");
  }
}

test("whatever happens in whatever order, in the end it shows what the server has", () => {
  const queries: InboxQuery[] = [
    {},
    { pageSize: 3 },
    { archived: true },
    { event: "a", pageSize: 3 },
  ];
  for (let seed = 1; seed <= 2000; seed++) {
    const query = queries[seed % queries.length] as InboxQuery;
    const world = new World(seed, query);
    for (let i = 0; i < 80; i++) world.step();
    const requests = world.settle();
    const { model, matching } = world;
    const { items, unread, more, state } = model.snapshot;
    const what = `seed ${seed}`;
    assert.equal(state, "ready", what);
    assert.equal(unread, world.unread, what);
    const expected = more ? matching.slice(0, items.length) : matching;
    assert.deepEqual(items, expected, what);
    assert.ok(requests <= 4, `${what}: ${requests} requests once all has come`);
  }
});
