// What became of a notification, in plain words. Pure.

import { ago, duration, isolated, plural } from "./format.js";
import { idTime } from "./ids.js";

/** The statuses of a notification and of a device: a tone, and the words for it. */
export const STATUSES = {
  acked: { tone: "ok", words: "acknowledged" },
  sent: { tone: "warn", words: "sent, not acknowledged" },
  waiting: { tone: "idle", words: "waiting" },
  offline: { tone: "idle", words: "offline, it waits" },
  expired: { tone: "bad", words: "expired" },
  gone: { tone: "bad", words: "not kept any more" },
  unknown: { tone: "warn", words: "not known" },
};

/** A status as above; one that is new to this page is shown as it is. */
export function statusOf(status) {
  return STATUSES[status] ?? { tone: "idle", words: String(status) };
}

/** How it stands as a whole: where some devices have acknowledged it, how many. */
export function verdict({ status, feed, devices }) {
  if (status === "sent" && !feed?.user) return { tone: "ok", words: "sent" }; // nothing more is to be expected
  const acked = devices.filter((device) => device.status === "acked").length;
  if (status !== "sent" || !acked) return statusOf(status);
  return { tone: "idle", words: `acknowledged by ${acked} of ${devices.length} devices` };
}

/** When the notification was accepted, in milliseconds: as the steps tell it, else by its id. */
export function acceptedAt(trace) {
  const step = trace.steps.find((each) => each.what === "accepted");
  return step ? Date.parse(step.time) : idTime(trace.id);
}

/** The steps, each with the seconds since the notification was accepted and since the step before. */
export function timeline(trace) {
  const start = acceptedAt(trace);
  let previous = null;
  return trace.steps.map((step) => {
    const at = Date.parse(step.time);
    const told = {
      ...step,
      at,
      since: start === null ? null : (at - start) / 1000,
      after: previous === null ? null : (at - previous) / 1000,
    };
    previous = at;
    return told;
  });
}

/** To whom it went: "user u1", "topic chat.r1", "everyone (broadcast)"; null where that is not known. */
export function feedWords(feed) {
  if (!feed) return null;
  if (feed.user) return `user ${isolated(feed.user)}`;
  if (feed.topic) return `topic ${isolated(feed.topic)}`;
  return feed.broadcast ? "everyone (broadcast)" : null;
}

/**
 * The timeline in sentences, one for the devices of each status: a table tells of them one by one.
 *
 * @param trace the answer of `/console/api/trace`
 * @param {number} now milliseconds
 */
export function summary(trace, now) {
  const start = acceptedAt(trace);
  const statuses = [...new Set(trace.devices.map(({ status }) => status))];
  const sentences = statuses.map((status) => {
    const devices = trace.devices.filter((each) => each.status === status);
    return devices.length > 1 ? devicesSentence(status, devices, start) : deviceSentence(devices[0], start, now);
  });
  if (trace.status === "expired") sentences.push("Its time to live has passed: it is not delivered any more.");
  if (trace.note) sentences.push(trace.note);
  if (!sentences.length) sentences.push(alone(trace));
  return sentences;
}

function alone({ feed, steps }) {
  const sent = steps.some(({ what }) => what === "sent");
  if (feed?.topic) {
    return sent
      ? "Topics are not acknowledged: its way ends where it was sent."
      : "Nobody was subscribed: it has not been sent to anyone. Who subscribes from an earlier position gets it.";
  }
  if (feed?.broadcast) {
    return sent
      ? "Each device acknowledges a broadcast for itself, which is not told here."
      : "Nobody was connected: known devices get it when they return.";
  }
  return "It has not been sent to anyone yet.";
}

function devicesSentence(status, devices, start) {
  const all = plural(devices.length, "device");
  switch (status) {
    case "acked": {
      const times = devices.filter(({ time }) => time).map(({ time }) => Date.parse(time));
      const known = start !== null && times.length === devices.length;
      const last = known ? `, the last ${duration((Math.max(...times, start) - start) / 1000)} after it was accepted` : "";
      return `Acknowledged by ${all}${last}.`;
    }
    case "sent":
      return `${all} were sent it and have not acknowledged.`;
    case "offline":
      return `${all} are offline: it waits for each.`;
    case "waiting":
      return `For ${all} it waits.`;
    default:
      return `${all}: ${statusOf(status).words}.`;
  }
}

function deviceSentence({ device: name, status, time, why }, start, now) {
  const device = isolated(name);
  const at = time ? Date.parse(time) : null;
  const sentAt = at === null ? "" : ` ${ago(at, now)}`;
  switch (status) {
    case "acked":
      return at === null || start === null
        ? `Acknowledged by ${device}.`
        : `Acknowledged by ${device} ${duration(Math.max(at - start, 0) / 1000)} after it was accepted.`;
    case "sent":
      return `${device} was sent it${sentAt}${why ? `: ${why}` : " and has not acknowledged"}.`;
    case "offline":
      return `${device} is offline: ${why ? why.replace(/^not connected: /, "") : "it waits"}.`;
    case "waiting":
      return `For ${device} it waits${why ? `: ${why}` : ""}.`;
    default:
      return `${device}: ${[statusOf(status).words, why].filter(Boolean).join(", ")}.`;
  }
}
