import type { Inbox, InboxItem, InboxSnapshot } from "../types.js";
import { borrow, type Loan } from "./connection.js";
import { type Labels, LABELS } from "./labels.js";
import { type Shown, usual } from "./row.js";
import { type Words, words } from "./times.js";
import { View } from "./view.js";

/** What a bell needs of a connection. */
export interface Ringing {
  inbox(): Inbox;
}

/** What `pushsvc-open` tells; whoever prevents its default goes there by other means. */
export interface Opening {
  readonly item: InboxItem;
  /** Where the click leads, if anywhere. */
  readonly url: string | undefined;
}

/** Milliseconds that going to another page waits for the mark, which would be lost with this one. */
const PATIENCE = 500;
const NOTHING: InboxSnapshot = { items: [], unread: 0, state: "loading", more: false };

// Where pages are made on a server there are no elements; the module can be imported all the same.
const Base = (globalThis.HTMLElement ?? class {}) as typeof HTMLElement;

/**
 * `<pushsvc-inbox>`: a bell with the number of unread notifications, and a panel that lists them.
 *
 * It takes a connection in its property `push`, or the addresses to make one in its attributes
 * `token-url` and `url`.
 */
export class InboxElement extends Base {
  static readonly observedAttributes = ["url", "token-url", "labels", "lang"];

  #given: Ringing | undefined;
  #loan: Loan | undefined;
  /** Counts what the bell was connected to, so that what comes too late is told. */
  #turn = 0;
  #push: Ringing | undefined;
  #store: Inbox | undefined;
  #leave: (() => void) | undefined;
  #view: View | undefined;
  #labels: Labels = LABELS;
  #own: Partial<Labels> = {};
  #words: Words | undefined;
  #shown: (item: InboxItem) => Shown = usual;
  /** Another function where another one renders. */
  #text: (item: InboxItem) => Shown = usual;
  #failed = false;
  #error = false;

  /** The connection; one that is given takes the place of the addresses. */
  get push(): Ringing | undefined {
    return this.#push;
  }

  set push(push: Ringing | undefined) {
    if (this.#given === push) return;
    this.#given = push;
    if (this.isConnected) this.#connect();
  }

  /** What the bell says, as far as it is to differ from English. */
  get labels(): Partial<Labels> {
    return this.#own;
  }

  set labels(labels: Partial<Labels> | null | undefined) {
    this.#own = labels ?? {};
    // As JSON has no member that is undefined.
    this.#labels = { ...LABELS, ...JSON.parse(JSON.stringify(this.#own)) };
    this.#draw();
  }

  /** What of a notification is shown: its title, body and url. */
  get render(): (item: InboxItem) => Shown {
    return this.#shown;
  }

  set render(render: ((item: InboxItem) => Shown) | undefined) {
    this.#shown = render ?? usual;
    this.#text = (item) => this.#rendered(item);
    this.#draw();
  }

  /** What the page makes of a notification; one that it fails on hides none of the others. */
  #rendered(item: InboxItem): Shown {
    try {
      return this.#shown(item) ?? {};
    } catch (error) {
      console.error("pushsvc-inbox: render failed:", error);
      return usual(item);
    }
  }

  /** Opens the panel. */
  show(): void {
    this.#view?.show();
  }

  /** Closes the panel. */
  hide(): void {
    this.#view?.hide(true);
  }

  /** @internal */
  connectedCallback(): void {
    // What was set before the element was defined hides the properties of its class.
    for (const property of ["push", "labels", "render"] as const) {
      if (!Object.hasOwn(this, property)) continue;
      const value = this[property];
      delete (this as Record<string, unknown>)[property];
      (this as Record<string, unknown>)[property] = value;
    }
    this.#view ??= new View(this, this.shadowRoot ?? this.attachShadow({ mode: "open" }), {
      open: (item, url, event) => this.#open(item, url, event),
      toggle: ({ id, read }) =>
        this.#mark((store) => (read ? store.unread([id]) : store.read([id]))),
      archive: ({ id }) => this.#mark((store) => store.archive([id])),
      look: () => this.#subscribe(),
      readAll: () => this.#mark((store) => store.readAll()),
      more: () => this.#mark((store) => store.loadMore(), false),
      retry: () => this.#retry(),
    });
    this.#words = undefined; // here may be another language
    this.#connect();
  }

  /** @internal */
  disconnectedCallback(): void {
    this.#view?.hide();
    if (!this.isConnected) this.#disconnect(); // else it is only moved
  }

  /** @internal */
  attributeChangedCallback(name: string, before: string | null, value: string | null): void {
    if (before === value) return;
    if (name === "labels") this.#parse(value);
    else if (name === "lang") {
      this.#words = undefined;
      this.#draw();
    } else if (this.isConnected && !this.#given) this.#connect();
  }

  #parse(labels: string | null): void {
    try {
      this.labels = JSON.parse(labels || "{}");
    } catch (error) {
      console.error("pushsvc-inbox: labels are no JSON:", error);
    }
  }

  async #connect(): Promise<void> {
    const tokenUrl = this.getAttribute("token-url");
    if (!this.#view) return;
    // Before the former one is given back, as a bell that is only moved has the same again.
    const loan =
      this.#given || tokenUrl === null ? undefined : borrow(this.getAttribute("url"), tokenUrl);
    this.#disconnect();
    this.#loan = loan;
    const turn = this.#turn;
    this.#error = false;
    this.#draw();
    try {
      const push = this.#given ?? (await loan?.push);
      if (turn !== this.#turn) return;
      this.#store = push?.inbox();
      this.#push = push;
      this.#subscribe();
    } catch (error) {
      if (turn !== this.#turn) return;
      console.error("pushsvc-inbox:", error);
      this.#error = true;
    }
    this.#draw();
  }

  /** Listens to the store, which brings its count up to date where somebody begins to. */
  #subscribe(): void {
    const leave = this.#leave;
    this.#leave = this.#store?.subscribe(() => this.#draw());
    leave?.();
  }

  #disconnect(): void {
    this.#turn++;
    this.#leave?.();
    this.#loan?.release();
    this.#push = this.#store = this.#leave = this.#loan = undefined;
  }

  #draw(): void {
    if (!this.#view) return;
    const snapshot = this.#store?.snapshot() ?? NOTHING;
    this.#words ??= words(
      this.closest<HTMLElement>("[lang]")?.lang || document.documentElement.lang,
    );
    this.#view.update({
      snapshot: this.#error ? { ...snapshot, state: "error" } : snapshot,
      labels: this.#labels,
      words: this.#words,
      failed: this.#failed,
      shown: this.#text,
    });
  }

  /**
   * Changes something, and says so if that fails: the store takes it back then. Of what `saves`
   * nothing the store says itself that it does not come.
   */
  async #mark(change: (store: Inbox) => Promise<void>, saves = true): Promise<void> {
    if (!this.#store) return;
    this.#failed = false;
    this.#draw();
    try {
      await change(this.#store);
    } catch (error) {
      console.warn("pushsvc-inbox:", error);
      this.#failed = saves;
      this.#draw();
    }
  }

  async #open(item: InboxItem, url: string | undefined, event: MouseEvent): Promise<void> {
    const opening = { bubbles: true, composed: true, cancelable: true, detail: { item, url } };
    const goes = this.dispatchEvent(new CustomEvent<Opening>("pushsvc-open", opening));
    // With a key or the middle button the browser opens it elsewhere, and this page stays.
    const { button, ctrlKey, metaKey, shiftKey, altKey } = event;
    const here = !(button || ctrlKey || metaKey || shiftKey || altKey);
    if (here || !goes) event.preventDefault();
    const marking = item.read ? undefined : this.#mark((store) => store.read([item.id]));
    if (!here || !goes || !url) return;
    await Promise.race([marking, new Promise((resolve) => setTimeout(resolve, PATIENCE))]);
    location.assign(url);
  }

  #retry(): void {
    const { state } = (this.#push ?? {}) as { state?: { status?: string } };
    if (this.#error || (this.#loan && state?.status === "closed")) {
      this.#loan?.release(true);
      this.#connect();
    } else this.#mark((store) => store.refresh(), false);
  }
}

declare global {
  interface HTMLElementTagNameMap {
    "pushsvc-inbox": InboxElement;
  }
  interface HTMLElementEventMap {
    "pushsvc-open": CustomEvent<Opening>;
  }
}
