import type { InboxItem, InboxSnapshot } from "../types.js";
import css from "./bell.css";
import { icon, ICONS, make, say } from "./dom.js";
import { counted, type Labels } from "./labels.js";
import { type Doings, Row, type Shown } from "./row.js";
import type { Words } from "./times.js";

/** Milliseconds after which what is shown of a time may be old. */
const TICK = 10_000;
/** Milliseconds without another count before one is told: who listens would have to hear each. */
const HUSH = 1000;
/** Pixels between the panel, its button and the edges. */
const SPACE = 8;
/** Pixels below a button that are enough for a panel. */
const ENOUGH = 320;

let sheet: CSSStyleSheet | undefined;

/** The same for all bells of a page; a sheet that is made so needs no leave of the page's policy. */
function style(): CSSStyleSheet {
  if (!sheet) {
    sheet = new CSSStyleSheet();
    sheet.replaceSync(css);
  }
  return sheet;
}

/** What is to be shown, and in which words. */
export interface Showing {
  readonly snapshot: InboxSnapshot;
  readonly labels: Labels;
  readonly words: Words;
  /** Whether a mark could not be set. */
  readonly failed: boolean;
  readonly shown: (item: InboxItem) => Shown;
}

/** What the bell is asked for beside the doings of single notifications. */
export interface Wishes extends Doings {
  /** The panel opens. */
  look(): void;
  readAll(): void;
  more(): Promise<void>;
  retry(): void;
}

/** The bell and its panel, in the shadow tree of the element. */
export class View {
  readonly #host: HTMLElement;
  readonly #root: ShadowRoot;
  readonly #wishes: Wishes;
  readonly #badge = make("span", "badge");
  readonly #button = make("button", "button");
  readonly #told = make("span", "unseen");
  readonly #title = make("span", "title");
  readonly #readAll = make("button", "read-all");
  readonly #notice = make("p", "notice-text");
  readonly #retry = make("button", "retry");
  readonly #list = make("ul", "list");
  readonly #more = make("button", "more");
  readonly #panel: HTMLElement;
  readonly #noticeBox: HTMLElement;
  #showing: Showing | undefined;
  /** The last count that was shown. */
  #count: number | undefined;
  #hush: ReturnType<typeof setTimeout> | undefined;
  #rows = new Map<string, Row>();
  /** Ends what happens only while the panel is open; undefined while it is not. */
  #open: AbortController | undefined;
  #inside: Event | undefined;
  #asking = false;

  constructor(host: HTMLElement, root: ShadowRoot, wishes: Wishes) {
    this.#host = host;
    this.#root = root;
    this.#wishes = wishes;
    const own = make("slot", "");
    own.name = "icon";
    own.append(icon(ICONS.bell));
    this.#badge.setAttribute("aria-hidden", "true");
    this.#button.append(own, this.#badge);
    this.#button.setAttribute("aria-haspopup", "dialog");
    this.#button.setAttribute("aria-controls", "panel");
    this.#told.setAttribute("role", "status");
    this.#title.id = "title";
    const header = make("div", "header", this.#title, this.#readAll);
    this.#noticeBox = make("div", "notice", icon(ICONS.bell), this.#notice, this.#retry);
    // Without the role some browsers take a list without bullets for none.
    this.#list.setAttribute("role", "list");
    const content = make("div", "content", this.#noticeBox, this.#list, this.#more);
    this.#panel = make("div", "panel", header, content);
    this.#panel.id = "panel";
    this.#panel.tabIndex = -1;
    this.#panel.popover = "manual";
    this.#panel.setAttribute("role", "dialog");
    this.#panel.setAttribute("aria-labelledby", "title");
    this.#notice.setAttribute("role", "status");
    root.adoptedStyleSheets = [style()];
    root.append(this.#button, this.#told, this.#panel);

    this.#button.addEventListener("click", () => (this.#open ? this.hide(true) : this.show()));
    this.#readAll.addEventListener("click", () => wishes.readAll());
    this.#retry.addEventListener("click", () => wishes.retry());
    this.#more.addEventListener("click", () => this.#askMore());
    this.#panel.addEventListener("keydown", (event) => this.#key(event));
    root.addEventListener("pointerdown", (event) => {
      this.#inside = event;
    });
    root.addEventListener("focusout", (event) => {
      // To another part of the page, and not to another window.
      const to = (event as FocusEvent).relatedTarget as Node | null;
      if (to && !root.contains(to) && !host.contains(to)) this.hide();
    });
    this.#toggled();
  }

  get opened(): boolean {
    return !!this.#open;
  }

  /** Opens the panel; it takes the focus. */
  show(): void {
    if (this.#open || !this.#host.isConnected) return;
    this.#open = new AbortController();
    const { signal } = this.#open;
    const passive = { signal, capture: true, passive: true };
    document.addEventListener(
      "pointerdown",
      (event) => {
        if (event !== this.#inside) this.hide();
      },
      { signal },
    );
    document.addEventListener(
      "keydown",
      (event) => {
        if (event.key !== "Escape" || event.defaultPrevented) return;
        event.preventDefault(); // a dialog of the page that holds the bell stays open
        this.hide(true);
      },
      { signal },
    );
    addEventListener("resize", () => this.#place(), passive);
    addEventListener("scroll", () => this.#place(), passive);
    const timer = setInterval(() => this.#tick(), TICK);
    signal.addEventListener("abort", () => clearInterval(timer));
    this.#wishes.look();
    this.#panel.showPopover();
    this.#toggled();
    this.#draw();
    this.#place();
    this.#panel.focus({ preventScroll: true });
  }

  /** Closes the panel; what had the focus in it gives that back to the button if `focus`. */
  hide(focus = false): void {
    if (!this.#open) return;
    const within = this.#panel.contains(this.#root.activeElement);
    this.#open.abort();
    this.#open = undefined;
    // A bell that left the page has taken its panel along.
    if (this.#panel.isConnected) this.#panel.hidePopover();
    this.#clear();
    this.#toggled();
    if (focus && within) this.#button.focus();
  }

  #toggled(): void {
    this.#button.setAttribute("aria-expanded", `${this.opened}`);
  }

  #clear(): void {
    this.#rows.clear();
    this.#list.replaceChildren();
  }

  update(showing: Showing): void {
    const before = this.#showing;
    this.#showing = showing;
    const { labels, words, shown } = showing;
    if (before?.labels !== labels || before.words !== words || before.shown !== shown) {
      this.#clear();
    }
    this.#ring(showing);
    this.#draw();
  }

  /** The number, wherever it is shown or told. */
  #ring({ snapshot: { unread, state }, labels, words }: Showing): void {
    const told = counted(labels.unread, unread, words);
    const label = unread ? `${labels.title}, ${told}` : labels.title;
    this.#button.setAttribute("aria-label", label);
    this.#button.title = label;
    this.#badge.hidden = !unread;
    say(this.#badge, words.count(unread));
    // What was there when the page was opened is no news.
    if (this.#count !== undefined && this.#count !== unread) {
      clearTimeout(this.#hush);
      this.#hush = setTimeout(say, HUSH, this.#told, told);
    }
    if (this.#count !== undefined || state !== "loading") this.#count = unread;
  }

  #draw(): void {
    if (!this.#open || !this.#showing) return;
    const { snapshot, labels, words, failed, shown } = this.#showing;
    const { items, unread, state, more } = snapshot;
    say(this.#title, labels.title);
    say(this.#readAll, labels.markAllRead);
    const active = this.#root.activeElement;
    this.#readAll.disabled = !unread;

    const alone = !items.length;
    const notice =
      state === "error"
        ? labels.error
        : state === "offline"
          ? labels.offline
          : failed
            ? labels.failed
            : alone
              ? labels[state === "loading" ? "loading" : "empty"]
              : "";
    this.#noticeBox.hidden = !notice;
    this.#noticeBox.setAttribute("part", `notice notice-${alone ? "alone" : "above"}`);
    say(this.#notice, notice);
    this.#retry.hidden = state !== "error";
    say(this.#retry, labels.retry);

    this.#list.setAttribute("aria-label", labels.title);
    this.#list.hidden = alone;
    this.#fill(items, labels, words, shown);
    this.#more.hidden = !more;
    say(this.#more, this.#asking ? labels.loading : labels.loadMore);
    this.#more.setAttribute("aria-disabled", `${this.#asking}`);
    // What has the focus may be gone, or be of no use any more.
    if (active && this.#panel.contains(active) && (active as HTMLButtonElement).disabled) {
      this.#panel.focus();
    }
  }

  /** Puts the rows in order. One that stays is not moved, as it may have the focus. */
  #fill(
    items: readonly InboxItem[],
    labels: Labels,
    words: Words,
    shown: (item: InboxItem) => Shown,
  ): void {
    const now = Date.now();
    const active = this.#root.activeElement;
    const place = [...this.#list.children].findIndex((row) => row.contains(active));
    const part = place < 0 ? undefined : active?.part.value.split(" ").pop();
    const wanted = new Set(items.map(({ id }) => id));
    for (const [id, row] of this.#rows) {
      if (wanted.has(id)) continue;
      row.element.remove();
      this.#rows.delete(id);
    }
    items.forEach((item, index) => {
      let row = this.#rows.get(item.id);
      if (row) row.update(item, labels);
      else this.#rows.set(item.id, (row = new Row(item, shown(item), labels, words, this.#wishes)));
      row.tick(words, now);
      const there = this.#list.children[index];
      if (there !== row.element) this.#list.insertBefore(row.element, there ?? null);
    });
    if (part && !this.#list.contains(active)) this.#focus(place, part);
  }

  /** Gives the focus to what is where a row was. */
  #focus(place: number, part: string): void {
    const rows = this.#list.children;
    const row = rows[Math.min(place, rows.length - 1)];
    (row?.querySelector<HTMLElement>(`[part~=${part}]`) ?? this.#panel).focus();
  }

  #tick(): void {
    const now = Date.now();
    const words = this.#showing?.words;
    if (words) for (const row of this.#rows.values()) row.tick(words, now);
  }

  async #askMore(): Promise<void> {
    if (this.#asking) return;
    this.#asking = true;
    this.#draw();
    const before = this.#list.children.length;
    const focused = this.#root.activeElement === this.#more;
    await this.#wishes.more();
    this.#asking = false;
    this.#draw();
    if (focused && this.#list.children.length > before) this.#focus(before, "open");
  }

  #key(event: KeyboardEvent): void {
    const steps = [...this.#list.querySelectorAll<HTMLElement>("[part=open]")];
    if (!this.#more.hidden) steps.push(this.#more);
    const active = this.#root.activeElement;
    const at = steps.findIndex((step) => step === active || step.closest("li")?.contains(active));
    const to = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: steps.length - 1 }[event.key];
    if (to === undefined || event.altKey || event.ctrlKey || event.metaKey) return;
    event.preventDefault(); // the list would scroll
    steps[Math.max(0, Math.min(to, steps.length - 1))]?.focus();
  }

  /** Puts the panel below its button, or above it, within the window. */
  #place(): void {
    const { left, right, top, bottom } = this.#button.getBoundingClientRect();
    const { clientWidth: width, clientHeight: height } = document.documentElement;
    const { style, offsetWidth } = this.#panel;
    const start = getComputedStyle(this.#host).direction === "rtl" ? left : right - offsetWidth;
    const below = height - bottom - 2 * SPACE;
    const above = top - 2 * SPACE;
    const up = below < ENOUGH && above > below;
    style.left = `${Math.max(SPACE, Math.min(start, width - offsetWidth - SPACE))}px`;
    style.top = up ? "auto" : `${bottom + SPACE}px`;
    style.bottom = up ? `${height - top + SPACE}px` : "auto";
    style.maxHeight = `${up ? above : below}px`;
  }
}
