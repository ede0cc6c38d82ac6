import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";

// The test runs in the folder of the package, after a build.
const CONSUMER = `
import { connect, PushError, type Notification, type Push, type State } from "pushsvc";
import { InboxElement } from "pushsvc/inbox";
import type { Inbox, InboxSnapshot, PushOptions, PushReason, PushStatus } from "pushsvc";

const push: Push = connect({
  url: "http://127.0.0.1:9",
  token: async ({ refused }) => (refused ? "new" : "old"),
  topics: { "scores.nba": null },
  share: false,
});
push.on("state", (state: State) => console.log(state.status));
const stop: () => void = push.on("notification", async (n: Notification) => n.ack());
stop();
const bell: InboxElement = document.createElement("pushsvc-inbox");
bell.push = push;
bell.labels = { title: "Inbox", unread: { one: "{n} new", other: "{n} new" } };
bell.render = ({ data }) => ({ title: String(data) });
bell.addEventListener("pushsvc-open", (event) => {
  console.log(event.detail.item.id, event.detail.url?.length);
  event.preventDefault();
});
export async function listen(): Promise<void> {
  for await (const { data, topic } of push) console.log(data, topic);
}
push.publish("chat.r1", { text: "hi" }, { event: "message" }).catch((error: PushError) => {
  console.log(error.code);
});
export async function reached(worker: ServiceWorkerRegistration): Promise<string | undefined> {
  const options: PushOptions = { serviceWorker: worker, title: "Shop", renew: false };
  const { enabled, error }: PushStatus = await push.push.enable(options);
  if (!enabled) await push.push.disable();
  const why = error?.code as PushReason;
  return why === "ios_not_installed" ? "install it" : (await push.push.status()).expires;
}
push.close();
// @ts-expect-error there is no such event
push.on("nope", () => {});

interface Events { "order.shipped": { order: number } }
const typed = connect<Events>({ url: "http://127.0.0.1:9", token: "t" });
typed.on("order.shipped", (n) => n.data.order.toFixed());
// @ts-expect-error the data of this event has no such member
typed.on("order.shipped", (n) => n.data.carrier);
// @ts-expect-error no such event is declared
typed.on("order.shiped", () => {});
export async function look(): Promise<number | undefined> {
  for await (const n of typed.history({ limit: 5 })) {
    if (n.event === "order.shipped") return n.data.order;
  }
  return (await typed.history()).notifications.length;
}
export async function see(): Promise<number> {
  const inbox: Inbox<Events> = typed.inbox({ pageSize: 10, event: "order.shipped" });
  const stop: () => void = inbox.subscribe(() => {
    const { items, unread, state }: InboxSnapshot<Events> = inbox.snapshot();
    for (const item of items) {
      if (item.event === "order.shipped") console.log(item.data.order.toFixed(), item.read);
    }
    console.log(unread, state);
  });
  await inbox.read(["1-0"]);
  await inbox.archive({ until: "1-0" });
  // @ts-expect-error what came after it is none of it
  await inbox.unread({ until: "1-0" });
  stop();
  return inbox.snapshot().unread;
}
`;

const PROGRAM = `
import { connect } from "pushsvc";
// Where pages are made on a server there is no element, and no error.
await import("pushsvc/inbox");
try {
  connect({ token: "t" });
} catch (error) {
  console.log(error.message);
}
const push = connect({ url: "http://127.0.0.1:9", token: "t" });
console.log(push.state.status);
push.close();
console.log(push.state.status);
const other = connect({ url: "http://127.0.0.1:9", token: "t", transports: ["sse"] });
other.on("state", ({ status, error }) => {
  if (status !== "waiting") return;
  console.log(error.code, /fetch/.test(error.message));
  other.close();
});
`;

function npm(...args: string[]): string {
  return execFileSync("npm", args, { encoding: "utf8", stdio: ["ignore", "pipe", "ignore"] });
}

test("the package holds what was built, and nothing else", () => {
  const [packed] = JSON.parse(npm("pack", "--dry-run", "--json", "--ignore-scripts"));
  const paths: string[] = packed.files.map(({ path }: { path: string }) => path);
  const others = paths.filter((path) => !/^dist\/.+\.d\.ts$/.test(path)).sort();
  assert.deepEqual(others, [
    "LICENSE",
    "README.md",
    "dist/bell.js",
    "dist/fallback.js",
    "dist/index.js",
    "dist/push-sw.js",
    "dist/push.js",
    "dist/react.js",
    "dist/store.js",
    "dist/tabs.js",
    "package.json",
  ]);
});

test("the modules hold nothing that React Native cannot parse", () => {
  for (const name of ["index", "fallback", "tabs", "store", "push"]) {
    const module = readFileSync(`dist/${name}.js`, "utf8");
    assert.doesNotMatch(module, /import\.meta|^import /m);
    // What Metro finds: modules of the package, by their names.
    const loaded = [...module.matchAll(/import\((.*?)\)/g)].map(([, what]) => what);
    assert.deepEqual(
      loaded.sort(),
      name === "index"
        ? ['"./fallback.js"', '"./tabs.js"', '"./store.js"', '"./push.js"'].sort()
        : [],
    );
  }
});

test("the package can be installed, imported and type-checked", () => {
  const folder = mkdtempSync(join(tmpdir(), "pushsvc-"));
  try {
    const pack = ["pack", "--json", "--ignore-scripts", "--pack-destination", folder];
    const [{ filename }] = JSON.parse(npm(...pack));
    writeFileSync(join(folder, "package.json"), '{"type":"module"}');
    npm("install", "--offline", "--ignore-scripts", "--prefix", folder, join(folder, filename));
    writeFileSync(join(folder, "consumer.ts"), CONSUMER);
    writeFileSync(join(folder, "program.js"), PROGRAM);
    const program = [join(folder, "program.js")];
    const printed = execFileSync(process.execPath, program, { encoding: "utf8" });
    assert.match(printed, /^connect needs a url.*\nconnecting\nclosed\nlost true\n$/);
    for (const module of ["nodenext", "preserve"]) {
      const compilerOptions = { module, target: "es2022", strict: true, noEmit: true, types: [] };
      const project = join(folder, "tsconfig.json");
      writeFileSync(project, JSON.stringify({ compilerOptions, files: ["consumer.ts"] }));
      execFileSync("node_modules/.bin/tsc", ["-p", project], { stdio: "inherit" });
    }
  } finally {
    rmSync(folder, { recursive: true });
  }
});
