import type { InboxItem } from "../types.js";
import { icon, ICONS, make, name, say } from "./dom.js";
import type { Labels } from "./labels.js";
import { link } from "./links.js";
import type { Words } from "./times.js";

/** What the bell shows of a notification. */
export interface Shown {
  readonly title?: unknown;
  readonly body?: unknown;
  /** Where a click leads. */
  readonly url?: unknown;
}

/** What can be done with one. */
export interface Doings {
  open(item: InboxItem, url: string | undefined, event: MouseEvent): void;
  toggle(item: InboxItem): void;
  archive(item: InboxItem): void;
}

/** Most characters of a title or a body that are shown. */
const MOST = 1000;

/** What is shown where the page does not say it: the usual fields of the data. */
export function usual({ data, event }: InboxItem): Shown {
  if (typeof data !== "object" || !data) return { title: data ?? event };
  const { title, text, body, url } = data as Record<string, unknown>;
  return { title: title ?? text ?? event, body, url };
}

/** What can be read of a value; an object has no text. */
function text(value: unknown): string {
  return typeof value === "string" || typeof value === "number" ? `${value}`.slice(0, MOST) : "";
}

/** A text in the direction of its own first letter, which reorders nothing around it. */
function isolated(text: string): HTMLElement {
  const made = make("bdi", "");
  say(made, text);
  return made;
}

/** One notification in the list. */
export class Row {
  readonly element: HTMLLIElement;
  /** What takes the focus. */
  readonly open: HTMLElement;
  #item: InboxItem;
  readonly #title: string;
  readonly #time = make("time", "time");
  readonly #state = make("span", "unseen");
  readonly #toggle = make("button", "action toggle");
  readonly #at: number;

  constructor(item: InboxItem, shown: Shown, labels: Labels, words: Words, doings: Doings) {
    this.#item = item;
    this.#title = text(shown.title) || labels.title;
    const body = text(shown.body);
    const url = link(shown.url, document.baseURI);
    const title = make("span", "item-title", isolated(this.#title));
    const more = make("span", "body", isolated(body));
    const time = new Date(item.time);
    this.#at = +time;
    this.#time.dateTime = time.toISOString();
    this.#time.title = words.exact(this.#at);
    const parts = [this.#state, title, this.#time, ...(body ? [more] : [])];
    this.open = url ? make("a", "open", ...parts) : make("button", "open", ...parts);
    if (url) (this.open as HTMLAnchorElement).href = url;
    const open = (event: MouseEvent) => doings.open(this.#item, url, event);
    this.open.addEventListener("click", open);
    // The middle button opens an address in another tab; others open nothing.
    this.open.addEventListener("auxclick", (event) => event.button === 1 && url && open(event));
    this.#toggle.addEventListener("click", () => doings.toggle(this.#item));
    const archive = make("button", "action archive", icon(ICONS.archive));
    name(archive, labels.archive, this.#title);
    archive.addEventListener("click", () => doings.archive(this.#item));
    this.element = make("li", "", this.open, this.#toggle, archive);
    this.#mark(labels);
  }

  /** Shows what may have changed of it: whether it was read. */
  update(item: InboxItem, labels: Labels): void {
    const changed = item.read !== this.#item.read;
    this.#item = item;
    if (changed) this.#mark(labels);
  }

  #mark(labels: Labels): void {
    const { read } = this.#item;
    this.element.setAttribute("part", read ? "item" : "item item-unread");
    say(this.#state, read ? "" : labels.isUnread);
    this.#toggle.replaceChildren(icon(read ? ICONS.unread : ICONS.read));
    name(this.#toggle, read ? labels.markUnread : labels.markRead, this.#title);
  }

  /** Says how long ago it was. */
  tick(words: Words, now: number): void {
    say(this.#time, words.ago(this.#at, now));
  }
}
