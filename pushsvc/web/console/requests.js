// What the forms ask for. Pure.

const NAME = /^[A-Za-z0-9._:@=-]{1,128}$/;
const NAMES = "1 to 128 characters of A–Z a–z 0–9 . _ - : @ =";

/** The body of a notification, or what is wrong with a field: `{body}` or `{errors: {field: message}}`. */
export function notificationOf({ to, name, event, ttl, data }) {
  const errors = {};
  if (to !== "broadcast" && !NAME.test(name)) errors.name = `Name the ${to}: ${NAMES}.`;
  if (event && !NAME.test(event)) errors.event = `An event is ${NAMES}.`;
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
  if (what === "user") return user ? { body: { user, ttl } } : { errors: { user: "Name the user." } };
  if (what === "jti") return jti ? { body: { jti, ttl } } : { errors: { jti: "Give the token's jti." } };
  const at = Date.parse(`${before}Z`);
  if (Number.isNaN(at)) return { errors: { before: "Give a date and a time." } };
  return { body: { issued_before: Math.floor(at / 1000), ttl } };
}
