// The part of the address after `#`: which view, of what. Pure.

const VIEWS = new Set(["overview", "user", "trace", "send", "revocations"]);

/** A view and its parameters: `#/user/u1` is `{view: "user", user: "u1"}`; what is none of ours is the overview. */
export function parse(hash) {
  const [path, query = ""] = hash.replace(/^#\/?/, "").split("?", 2);
  const [first, ...rest] = path.split("/");
  const view = VIEWS.has(first) ? first : "overview";
  const parameters = Object.fromEntries(new URLSearchParams(query));
  const user = decode(rest.join("/"));
  return view === "user" && user ? { ...parameters, view, user } : { ...parameters, view };
}

function decode(part) {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}

/** The address of a user's page. */
export function userHref(user) {
  return `#/user/${encodeURIComponent(user)}`;
}

/** The address of a trace; `feed`, `{user}`, `{topic}` or `{broadcast}`, says where to look, undefined everywhere. */
export function traceHref(id, feed = {}) {
  return `#/trace?${new URLSearchParams({ id, ...feed })}`;
}

/** The token of `#token=…`; null without one. */
export function tokenOf(hash) {
  return new URLSearchParams(hash.replace(/^#\/?\??/, "")).get("token");
}
