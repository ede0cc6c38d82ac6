// Puts the JavaScript client under the commands of the conformance suite; see conformance/README.md.
// It is the built module that nodes serve, which is in the repository.
import { createInterface } from "node:readline";
import { connect } from "../../pushsvc/web/assets/client.js";

const tell = (event, fields = {}) =>
  process.stdout.write(`${JSON.stringify({ event, ...fields })}\n`);

/** Close codes and statuses as numbers, other codes as they are. */
const codeOf = (error) =>
  error.status ?? (/^\d+$/.test(error.code) ? Number(error.code) : error.code);
const told = (error) => ({
  code: codeOf(error) ?? error.name,
  detail: error.message,
  topic: error.topic,
});

/** Waits for values that commands bring. */
class Slot {
  #values = [];
  #waiting = [];

  put(value) {
    const next = this.#waiting.shift();
    if (next) next(value);
    else this.#values.push(value);
  }

  take() {
    if (this.#values.length) return Promise.resolve(this.#values.shift());
    return new Promise((resolve) => this.#waiting.push(resolve));
  }
}

const tokens = new Slot();
const handled = new Slot();
/** The newest notifications, which a later command may acknowledge. */
const recent = [];
let push;
let inbox;
let inHand;

function start({
  url,
  token,
  provider,
  device,
  topics,
  ack,
  queue,
  transports,
  timing,
  handler,
  random,
}) {
  if (random !== undefined) Math.random = () => random;
  const provide = async ({ refused }) => {
    tell("token", { refused });
    const { token, fail } = await tokens.take();
    if (fail) throw new Error("the scenario gives no token");
    return token;
  };
  push = connect({
    url,
    token: provider ? provide : token,
    device,
    topics,
    ack,
    queue,
    transports,
    timing,
  });
  push.on("notification", async (notification) => {
    const { ack: _, ...message } = notification;
    recent.push(notification);
    if (recent.length > 1000) recent.shift();
    tell("notification", { message });
    if (handler !== "held") return;
    inHand = notification.id;
    const { fail } = await handled.take();
    inHand = undefined;
    if (fail) throw new Error("the scenario lets the handler fail");
  });
  for (const kind of ["gap", "withdrawn", "presence"]) {
    push.on(kind, (message) => tell(kind, { message }));
  }
  push.on("error", (error) => tell("error", told(error)));
  const state = ({ error, ...rest }) =>
    tell("state", { ...rest, ...(error && { error: told(error) }) });
  state(push.state);
  push.on("state", state);
}

function open({ page, event, archived }) {
  inbox = push.inbox({ pageSize: page, event, archived });
  const show = () => {
    const { error, ...shown } = inbox.snapshot();
    tell("inbox", { ...shown, ...(error && { error: told(error) }) });
  };
  inbox.subscribe(show);
  show();
}

async function call({ call, do: what, topic, since, data, fields, ids, until }) {
  const which = until === undefined ? ids : { until };
  try {
    const value = await {
      subscribe: () => push.subscribe(topic, { since }),
      unsubscribe: () => push.unsubscribe(topic),
      publish: () => push.publish(topic, data, fields),
      presence: () => push.presence(topic),
      read: () => inbox.read(which),
      unread: () => inbox.unread(ids),
      archive: () => inbox.archive(which),
      unarchive: () => inbox.unarchive(ids),
      read_all: () => inbox.readAll(),
      more: () => inbox.loadMore(),
    }[what]();
    tell("result", { call, value: value ?? {} });
  } catch (error) {
    tell("failed", { call, ...told(error) });
  }
}

const commands = {
  connect: start,
  inbox: open,
  token: (command) => tokens.put(command),
  handled(command) {
    if (command.id === undefined || command.id === inHand) handled.put(command);
  },
  ack({ id, broadcast = false }) {
    recent.findLast((each) => each.id === id && !!each.broadcast === broadcast)?.ack();
  },
  close: () => push.close(),
};

const has = ["fallback", "heartbeat", "inbox", "random"];
tell("ready", { client: "pushsvc (JavaScript)", has });
for await (const line of createInterface({ input: process.stdin })) {
  const command = JSON.parse(line);
  (commands[command.do] ?? call)(command);
}
push?.close();
