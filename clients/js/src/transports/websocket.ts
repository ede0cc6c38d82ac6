import { PushError, told, unknown } from "../errors.js";
import type { Reply } from "../types.js";
import { type Opener, parse } from "./link.js";

/** Requests under way: fewer than the errors for which a server ends a connection. */
const MOST = 8;

/** A WebSocket. A refusal has no status here: browsers keep it to themselves. */
export const websocket: Opener = (target, on) => {
  const waiting = new Map<number, [(reply: Reply) => void, (error: Error) => void]>();
  let refs = 0;
  let socket: any;
  try {
    socket = new target.WebSocket(
      `${target.url.replace(/^http/i, "ws")}/v1/ws?device=${encodeURIComponent(target.device)}`,
      ["pushsvc.v1.json", `bearer.${target.token}`],
    );
    socket.onmessage = ({ data }: any) => {
      const message = parse(data);
      on.traffic();
      const { type, ref, ...reply } = message;
      const settle = waiting.get(ref);
      if (!settle) return on.message(message);
      waiting.delete(ref);
      if (type === "error") settle[1](told(reply));
      else settle[0](reply);
    };
    socket.onclose = ({ code, reason }: any) =>
      on.end(new PushError(String(code), reason || `the connection ended (${code})`));
    socket.onerror = () => {}; // the close that follows says more
  } catch (error) {
    queueMicrotask(() => on.end(new PushError("unusable", String(error))));
  }
  const send = (message: any) => socket?.readyState === 1 && socket.send(JSON.stringify(message));
  return {
    most: MOST,
    request(message) {
      const ref = ++refs;
      let timer: ReturnType<typeof setTimeout>;
      return new Promise((resolve, reject) => {
        waiting.set(ref, [resolve, reject]);
        timer = setTimeout(() => {
          waiting.delete(ref);
          reject(unknown());
        }, target.timing.answer);
        send({ ...message, ref });
      }).finally(() => clearTimeout(timer));
    },
    ack: ({ id, broadcast }) => send({ type: "ack", id, broadcast }),
    close() {
      if (socket) socket.onmessage = socket.onclose = null;
      try {
        socket?.close(1000);
      } catch {
        // some implementations refuse while the handshake is under way
      }
      for (const [, reject] of waiting.values()) reject(unknown());
      waiting.clear();
    },
  };
};
