import type { Words } from "./times.js";

/** A text with `{n}` in it, or its forms, by the names of `Intl.PluralRules`. */
export type Counted = string | { readonly other: string; readonly [form: string]: string };

/** What the bell says. */
export interface Labels {
  readonly title: string;
  readonly unread: Counted;
  /** Of one notification, for who cannot see its dot. */
  readonly isUnread: string;
  readonly markAllRead: string;
  readonly markRead: string;
  readonly markUnread: string;
  readonly archive: string;
  readonly loadMore: string;
  readonly loading: string;
  readonly empty: string;
  readonly offline: string;
  readonly error: string;
  readonly retry: string;
  /** A mark could not be set. */
  readonly failed: string;
}

export const LABELS: Labels = {
  title: "Notifications",
  unread: "{n} unread",
  isUnread: "Unread",
  markAllRead: "Mark all as read",
  markRead: "Mark as read",
  markUnread: "Mark as unread",
  archive: "Archive",
  loadMore: "Show older ones",
  loading: "Loading…",
  empty: "No notifications",
  offline: "No connection. New notifications come once it is back.",
  error: "The notifications could not be loaded.",
  retry: "Try again",
  failed: "That could not be saved. Try again.",
};

/** A text for a count. */
export function counted(text: Counted, count: number, words: Words): string {
  const form = typeof text === "string" ? text : (text[words.form(count)] ?? text.other);
  // A page without types may have left out the form.
  return `${form ?? "{n}"}`.replace("{n}", words.count(count));
}
