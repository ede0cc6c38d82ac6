// The token, for as long as the tab lives.

import { tokenOf } from "./router.js";
import { Kept } from "./storage.js";

const kept = new Kept("sessionStorage", "pushsvc.console.token");

/** The token that is kept; null when signed out. */
export function token() {
  return kept.get();
}

/** Keeps a token. */
export function keep(value) {
  kept.set(value);
}

/** Forgets it. */
export function forget() {
  kept.set(null);
}

/** Takes a token that came in the address, and out of the address and the history. Whether there was one. */
export function takeFromAddress() {
  const found = tokenOf(location.hash);
  if (!found) return false;
  keep(found);
  history.replaceState(null, "", `${location.pathname}${location.search}#/`);
  return true;
}
