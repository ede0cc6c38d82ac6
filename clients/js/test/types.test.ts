// What the types say is checked by `npm run check`; nothing of it is run.
import { test } from "node:test";
import {
  connect,
  type Incoming,
  type Kept,
  type Notification,
  type Page,
  type Push,
  type State,
} from "../src/index.js";

interface Events {
  "order.shipped": { order: number };
  "chat.message": { text: string; from?: string };
}

type Same<A, B> =
  (<T>() => T extends A ? 1 : 2) extends <T>() => T extends B ? 1 : 2 ? true : false;
const holds = <_T extends true>() => {};
const options = { url: "http://127.0.0.1:9", token: "t" };

async function declared(push: Push<Events>) {
  push.on("order.shipped", (n) => {
    holds<Same<typeof n.data, { order: number }>>();
    holds<Same<typeof n.event, "order.shipped">>();
    n.ack();
    // @ts-expect-error the data of this event has no such member
    n.data.carrier;
  });
  const stop: () => void = push.on("chat.message", async ({ data }) => data.text.length);
  stop();
  push.on("state", (state) => holds<Same<typeof state, State>>());
  push.on("error", ({ message }) => message.length);
  // @ts-expect-error no such event is declared
  push.on("order.shiped", () => {});
  // @ts-expect-error the data of the event is something else
  push.on("order.shipped", (n: Notification<{ order: string }>) => n);

  push.on("notification", (n) => {
    if (n.event === "order.shipped") holds<Same<typeof n.data, { order: number }>>();
    else if (n.event === "chat.message") n.data.text.length;
    else holds<Same<typeof n.data, unknown>>();
    // @ts-expect-error which event it is has to be asked first
    n.data.order;
  });
  for await (const n of push) {
    if (n.event === "order.shipped") n.data.order.toFixed();
    // @ts-expect-error that is no event that is declared
    if (n.event === "order.shiped") return;
    switch (n.event) {
      case "chat.message":
        return n.data.from;
    }
  }

  const page: Page<Events> = await push.history({ limit: 10 });
  const next: string | null = page.next;
  for await (const n of push.history({ before: next })) {
    if (n.event === "order.shipped") holds<Same<typeof n.data, { order: number }>>();
    holds<Same<typeof n.id, string>>();
    n.acked[0]?.time?.length;
    // @ts-expect-error what is read of the past is not acknowledged
    n.ack();
  }
  // @ts-expect-error a limit is a number
  push.history({ limit: "10" });
  return undefined;
}

async function undeclared(push: Push) {
  holds<Same<Incoming<{}>, Notification>>();
  push.on("notification", (n: Notification) => n.data);
  push.on("notification", ({ data, event }) => {
    holds<Same<typeof data, unknown>>();
    holds<Same<typeof event, string | undefined>>();
  });
  // @ts-expect-error without declared events there are the client's own only
  push.on("order.shipped", () => {});
  for await (const n of push) holds<Same<typeof n, Notification>>();
  const { notifications } = await push.history();
  holds<Same<(typeof notifications)[number], Kept>>();
}

function open(push: Push<Record<string, unknown>>) {
  push.on("whatever.comes", ({ data, event }) => {
    holds<Same<typeof data, unknown>>();
    holds<Same<typeof event, "whatever.comes">>();
  });
  push.on("state", ({ status }) => status);
}

/** An event with the name of one of the client's own kinds does not change what that is. */
function shadowed(push: Push<{ state: { n: 1 }; notification: { n: 2 } }>) {
  push.on("state", (state) => holds<Same<typeof state, State>>());
  push.on("notification", (n) => n.event === "state" && n.data.n === 1);
}

function connected() {
  const push: Push = connect(options);
  const typed = connect<Events>(options);
  holds<Same<typeof typed, Push<Events>>>();
  // @ts-expect-error a client of other events
  const other: Push<{ a: string }> = typed;
  // @ts-expect-error an address has to be in the options
  connect("push.example.com");
  return [push, other];
}

test("events that are declared type handlers, loops and history", () => {
  void [declared, undeclared, open, shadowed, connected];
});
