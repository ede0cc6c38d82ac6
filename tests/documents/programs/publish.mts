// What a backend in TypeScript does, with the types that openapi-typescript makes of the document:
// it publishes to one user, to a list and in a batch, and reads it by a poll and in the history.
import createClient from "openapi-fetch";
import type { components, paths } from "./schema.d.ts";

declare const process: { argv: string[] };

type Shapes = components["schemas"];
type Same<A, B> =
  (<T>() => T extends A ? 1 : 2) extends <T>() => T extends B ? 1 : 2 ? true : false;

type Arguments = [string, string, string, string, string];
const [baseUrl, backendToken, userToken, user, other] = process.argv.slice(2) as Arguments;
const client = (token: string) =>
  createClient<paths>({ baseUrl, headers: { Authorization: `Bearer ${token}` } });
const backend = client(backendToken);
const device = client(userToken);

function must<T>(answer: { data?: T; error?: unknown; response: Response }): T {
  if (answer.data === undefined) {
    throw new Error(`${answer.response.status} ${JSON.stringify(answer.error)}`);
  }
  return answer.data;
}

const note: Shapes["Notification"] = {
  to: { user: user },
  event: "order.shipped",
  data: { order: 17 },
};
const published = must(
  await backend.POST("/v1/notifications", {
    params: { header: { "Idempotency-Key": `"order-17 ${user}"` } },
    body: note,
  }),
);
const typedPublish: Same<typeof published, Shapes["Published"]> = true;

const listed = must(
  await backend.POST("/v1/notifications", {
    body: { to: { users: [user, other] }, data: "for both" },
  }),
);

const batch = must(
  await backend.POST("/v1/notifications/batch", {
    body: {
      notifications: [
        { to: { user: user }, data: 1 },
        { to: { topic: "no topic" }, data: 2 },
      ],
    },
  }),
);
const typedBatch: Same<typeof batch, Shapes["BatchResults"]> = true;

const polled = must(
  await device.GET("/v1/poll", {
    params: { query: { device: "phone", wait: 5, topic: ["news"] } },
  }),
);
const typedPoll: Same<typeof polled, Shapes["Poll"]> = true;
const received = polled.messages.flatMap((each) =>
  each.type === "notification" && "id" in each ? [each] : [],
);

const last = received.at(-1)!;
const acked = must(await device.POST("/v1/ack", { body: { device: "phone", id: last.id } }));

const history = must(
  await backend.GET("/v1/users/{user}/notifications", {
    params: { path: { user: user }, query: { limit: 10 } },
  }),
);
const typedHistory: Same<typeof history, Shapes["NotificationPage"]> = true;

const refused = await device.POST("/v1/notifications", { body: note });
const typedProblem: Same<typeof refused.error, Shapes["Problem"] | undefined> = true;

console.log(
  JSON.stringify({
    typed: [typedPublish, typedBatch, typedPoll, typedHistory, typedProblem],
    published: "id" in published ? published.id : null,
    listed: "results" in listed ? listed.results.map((each) => "id" in each) : null,
    batch: batch.results.map((each) =>
      "id" in each ? "id" : "status" in each ? each.status : null,
    ),
    polled: received.map((each) => each.data),
    acked: acked.acked === last.id,
    history: history.notifications.map((each) => each.data),
    acknowledged: history.notifications.map((each) => each.acked.map(({ device }) => device)),
    refused: refused.error?.type,
  }),
);
