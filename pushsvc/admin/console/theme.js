// Light, dark, or as the system says. Loaded before the first paint, so that a page never flashes in the other one.

import { Kept } from "./storage.js";

const kept = new Kept("localStorage", "pushsvc.console.theme");
const NEXT = { system: "light", light: "dark", dark: "system" };

/** What was chosen: "system", "light" or "dark". */
export function theme() {
  const chosen = kept.get();
  return chosen in NEXT ? chosen : "system";
}

/** Takes the next of the three. */
export function changeTheme() {
  kept.set(NEXT[theme()]);
  apply();
}

function apply() {
  document.documentElement.dataset.theme = theme();
}

apply();
