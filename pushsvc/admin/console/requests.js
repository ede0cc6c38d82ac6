// What the forms ask for. Pure.

const MOST = 256; // bytes of a name
const RULES = {
  user: [/[\p{Cc}\p{Cs}]/u, "a user id has no control characters"],
  topic: [/[\p{C}\p{Z}*]/u, "a topic is printable, without white space and *"],
};
const EVENT = /^[A-Za-z0-9._:@=-]{1,128}$/;

/** What is wrong with the name of a user or a topic; undefined for nothing. */
export function wrongName(kind, name) {
  const [refused, rule] = RULES[kind];
  if (!name) return `Name the ${kind}.`;
  if (refused.test(name)) return `This is none: ${rule}.`;
  if (new TextEncoder().encode(name).length > MOST) return `This is too long: at most ${MOST} bytes of UTF-8.`;
}

/** The body of a notification, or what is wrong with a field: `{body}` or `{errors: {field: message}}`. */
export function notificationOf({ to, name, event, ttl, data }) {
  const errors = {};
  const wrong = to !== "broadcast" && wrongName(to, name);
  if (wrong) errors.name = wrong;
  if (event && !EVENT.test(event)) errors.event = "An event is 1 to 128 characters of A–Z a–z 0–9 . _ - : @ =.";
  if (ttl && !/^\d{1,9}$/.test(ttl)) errors.ttl = "Whole seconds, or nothing for the retention.";
  let value;
  try {
    value = JSON.parse(data);
  } catch (error) {
    errors.data = data.trim() ? `This is not JSON: ${error.message}.` : "Data is needed: any JSON, null at the least.";
  }
  if (Object.keys(errors).length) return { errors };
  const body = { to: to === "broadcast" ? { broadcast: true } : { [to]: name }, data: value };
  if (event) body.event = event;
  if (ttl) body.ttl = Number(ttl);
  return { body };
}

/** The body of a revocation, or what is wrong, as above; `before` is UTC, as its field gives it. */
export function revocationOf({ what, user, jti, before, days }) {
  const ttl = Number(days) * 86400;
  if (what === "user") {
    const wrong = wrongName("user", user);
    return wrong ? { errors: { user: wrong } } : { body: { user, ttl } };
  }
  if (what === "jti") return jti ? { body: { jti, ttl } } : { errors: { jti: "Give the token's jti." } };
  const at = Date.parse(`${before}Z`);
  if (Number.isNaN(at)) return { errors: { before: "Give a date and a time." } };
  return { body: { issued_before: Math.floor(at / 1000), ttl } };
}
