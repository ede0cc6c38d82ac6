// A service that answers as APNs does, by the HTTP/2 of Node.js; started by apns_service.py.
//
// Arguments: the files of its certificate and key, and of the public key of the provider tokens;
// the id of that key, and the team. It says its port on standard output, then each request that it
// got, and takes commands on standard input; all of that is a line of JSON each.

import { createHash, createPublicKey, verify } from "node:crypto";
import { readFileSync } from "node:fs";
import { createSecureServer, constants } from "node:http2";
import { createInterface } from "node:readline";

const [certificate, key, publicKey, kid, team] = process.argv.slice(2);
const signer = createPublicKey(readFileSync(publicKey));
const say = (line) => process.stdout.write(JSON.stringify(line) + "\n");

const rules = new Map();
const sessions = new Set();
const held = [];
const counts = { sessions: 0, requests: 0, open: 0, most: 0, resets: 0, pings: 0, pongs: 0 };
const allowed = { maxConcurrentStreams: 1000 };
let mostTokenAge = 3600;

const server = createSecureServer({
  cert: readFileSync(certificate),
  key: readFileSync(key),
  settings: allowed,
});

server.on("session", (session) => {
  counts.sessions += 1;
  sessions.add(session);
  session.number = counts.sessions;
  session.on("close", () => sessions.delete(session));
  session.on("error", () => {});
  session.on("ping", () => (counts.pings += 1));
  session.settings(allowed);
});

const refusal = (status, reason) => ({ status, body: { reason } });

function tokenRefused(header) {
  const [, token] = /^bearer (.+)$/i.exec(header ?? "") ?? [];
  if (token === undefined) return "MissingProviderToken";
  const parts = token.split(".");
  if (parts.length !== 3) return "InvalidProviderToken";
  const [head, claims] = parts
    .slice(0, 2)
    .map((part) => JSON.parse(Buffer.from(part, "base64url").toString()));
  const signature = Buffer.from(parts[2], "base64url");
  const signed = Buffer.from(`${parts[0]}.${parts[1]}`);
  const good =
    head.alg === "ES256" &&
    head.kid === kid &&
    claims.iss === team &&
    verify("sha256", signed, { key: signer, dsaEncoding: "ieee-p1363" }, signature);
  if (!good) return "InvalidProviderToken";
  const age = Date.now() / 1000 - claims.iat;
  return age > mostTokenAge || age < -60 ? "ExpiredProviderToken" : null;
}

function refused(headers, body) {
  if (headers[":method"] !== "POST") return refusal(405, "MethodNotAllowed");
  const [, device] = /^\/3\/device\/([^/]*)$/.exec(headers[":path"]) ?? [];
  if (device === undefined) return refusal(404, "BadPath");
  const why = tokenRefused(headers.authorization);
  if (why !== null) return refusal(403, why);
  if (!/^[0-9a-f]{64,200}$/.test(device)) return refusal(400, "BadDeviceToken");
  if (!headers["apns-topic"]) return refusal(400, "MissingTopic");
  if (headers["apns-push-type"] !== "alert") return refusal(400, "InvalidPushType");
  if (!/^[0-9]+$/.test(headers["apns-expiration"] ?? "0")) return refusal(400, "BadExpirationDate");
  if (!["1", "5", "10"].includes(headers["apns-priority"])) return refusal(400, "BadPriority");
  if (Buffer.byteLength(headers["apns-collapse-id"] ?? "", "latin1") > 64)
    return refusal(400, "BadCollapseId");
  const uuid = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/;
  if (!uuid.test(headers["apns-id"] ?? "")) return refusal(400, "BadMessageId");
  if (Number(headers["content-length"]) !== body.length) return refusal(400, "BadRequest");
  if (body.length === 0) return refusal(400, "PayloadEmpty");
  if (body.length > 4096) return refusal(413, "PayloadTooLarge");
  try {
    if (typeof JSON.parse(body.toString()).aps !== "object") return refusal(400, "BadPayload");
  } catch {
    return refusal(400, "BadPayload");
  }
  return null;
}

function answer(stream, { status = 200, headers = {}, body = null }) {
  if (stream.destroyed) return;
  const text = body === null ? "" : typeof body === "string" ? body : JSON.stringify(body);
  stream.respond({ ":status": status, ...headers }, { endStream: text === "" });
  if (text !== "") stream.end(text);
}

server.on("stream", (stream, headers) => {
  counts.open += 1;
  counts.most = Math.max(counts.most, counts.open);
  const parts = [];
  let ended = false;
  stream.on("error", () => {});
  stream.on("close", () => {
    counts.open -= 1;
    if (stream.rstCode !== constants.NGHTTP2_NO_ERROR) counts.resets += 1;
  });
  const device = /[^/]*$/.exec(headers[":path"])[0];
  const waiting = rules.get(device) ?? rules.get("*") ?? [];
  const rule = waiting.length > 1 || waiting[0]?.once ? waiting.shift() : waiting[0];
  if (rule?.act === "reset") return stream.close(rule.code);
  if (rule?.act === "drop") return stream.session.destroy();
  if (rule?.act === "early") answer(stream, rule);
  stream.on("data", (data) => parts.push(data));
  stream.on("end", () => {
    if (ended) return;
    ended = true;
    const body = Buffer.concat(parts);
    const kept = Object.fromEntries(Object.entries(headers).filter(([name]) => name));
    counts.requests += 1;
    say({
      request: kept,
      body: body.toString(),
      session: stream.session?.number ?? 0,
      digest: createHash("sha256").update(body).digest("hex"),
    });
    if (rule?.act === "early") return;
    if (rule?.act === "hold") return held.push(stream);
    const why = rule?.act === "answer" && rule.blind ? null : refused(headers, body);
    if (why !== null) return answer(stream, why);
    answer(stream, rule?.act === "answer" ? rule : { headers: { "apns-id": headers["apns-id"] } });
  });
});

const commands = {
  rule({ device, rules: those }) {
    rules.set(device, those);
  },
  release() {
    for (const stream of held.splice(0)) answer(stream, {});
  },
  allow({ settings }) {
    Object.assign(allowed, settings);
    for (const session of sessions) session.settings(allowed);
  },
  ping() {
    for (const session of sessions) session.ping(() => (counts.pongs += 1));
  },
  age({ most }) {
    mostTokenAge = most;
  },
  goaway({ code, last, why }) {
    for (const session of sessions)
      session.goaway(code, last, why === undefined ? undefined : Buffer.from(why));
  },
  leave() {
    for (const session of sessions) session.close();
  },
  destroy() {
    for (const session of sessions) session.destroy();
  },
  state() {},
};

createInterface({ input: process.stdin })
  .on("line", (line) => {
    const command = JSON.parse(line);
    commands[command.do](command);
    say({ done: { ...counts, held: held.length, live: sessions.size } });
  })
  .on("close", () => process.exit(0));

server.listen(0, "127.0.0.1", () => say({ port: server.address().port }));
