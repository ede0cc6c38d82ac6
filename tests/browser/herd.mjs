// A thousand clients in one process: `node herd.mjs <url>`, their tokens one a line on stdin.
// A line `report` is answered with one line of JSON: for when (Unix ms) attempts were planned, when
// each socket was tried and each client was connected, by what they are, and what they hold.
import { createInterface } from "node:readline";
// What the node serves, so that it finds its parts beside it.
import { connect } from "../../pushsvc/web/assets/client.js";

const url = process.argv[2];

const clients = [];
let tried = [];
let fetched = [];
let connected = [];
let planned = [];
let errors = [];

class Counted extends WebSocket {
  constructor(...rest) {
    tried.push(Date.now());
    super(...rest);
  }
}

const counted = (...request) => {
  fetched.push(Date.now());
  return fetch(...request);
};

for await (const line of createInterface({ input: process.stdin })) {
  if (line === "report") {
    const status = {};
    for (const { push: { state } } of clients) {
      const name = state.transport ?? state.status;
      status[name] = (status[name] ?? 0) + 1;
    }
    const held = clients.map((client) => client.held);
    console.log(JSON.stringify({ status, held, planned, tried, fetched, connected, errors }));
  } else if (line === "forget") {
    [tried, fetched, connected, planned, errors] = [[], [], [], [], []];
    console.log("{}");
  } else {
    const client = { held: [] };
    client.push = connect({
      url, token: line, share: false, WebSocket: Counted, fetch: counted,
    });
    client.push.on("state", ({ status, retryAt }) => {
      if (status === "connected") connected.push(Date.now());
      if (retryAt) planned.push(retryAt);
    });
    client.push.on("notification", ({ data }) => { client.held.push(data); });
    client.push.on("error", (error) => errors.push(String(error?.message ?? error)));
    clients.push(client);
  }
}
process.exit(0);
