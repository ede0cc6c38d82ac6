// A Socket.IO server as its documentation has it: tokens, the adapter on Redis streams, connection
// state recovery, a room for each user; and a path that a backend publishes to.
import { createServer } from "node:http";

import { createAdapter } from "@socket.io/redis-streams-adapter";
import jwt from "jsonwebtoken";
import { createClient } from "redis";
import { Server } from "socket.io";

const secret = process.env.BENCH_SECRET;
const redis = createClient({ url: process.env.BENCH_REDIS_URL });
await redis.connect();

const http = createServer((request, response) => {
  const parts = [];
  request.on("data", (part) => parts.push(part));
  request.on("end", () => {
    try {
      const token = request.headers.authorization?.replace("Bearer ", "");
      if (jwt.verify(token, secret).scope !== "push.publish") throw new Error("no publisher");
      for (const { room, data } of JSON.parse(Buffer.concat(parts))) io.to(room).emit("n", data);
      response.writeHead(202, { "Content-Length": 2 }).end("{}");
    } catch (error) {
      const text = String(error);
      response.writeHead(400, { "Content-Length": Buffer.byteLength(text) }).end(text);
    }
  });
});

const io = new Server(http, {
  adapter: createAdapter(redis, { onlyPlaintext: true }),
  connectionStateRecovery: {},
  pingInterval: Number(process.env.BENCH_PING_MS),
  serveClient: false,
});
io.use((socket, next) => {
  try {
    const { token, topic } = socket.handshake.auth;
    socket.join(`user:${jwt.verify(token, secret).sub}`);
    if (topic) socket.join(`topic:${topic}`);
    next();
  } catch (error) {
    next(error);
  }
});
http.listen({ port: 0, host: "127.0.0.1", backlog: 4096 }, () => {
  console.log(JSON.stringify({ event: "serving", port: http.address().port }));
});
