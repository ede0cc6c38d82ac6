// What the browser keeps for the console. One that keeps nothing for pages (cookies blocked, a strict policy) throws
// when it is asked: then a value lasts as long as the page.

/** One value: `storage` is "localStorage" or "sessionStorage". */
export class Kept {
  #storage;
  #key;
  #value = null;

  constructor(storage, key) {
    this.#storage = storage;
    this.#key = key;
  }

  /** The value; null where there is none. */
  get() {
    try {
      return globalThis[this.#storage].getItem(this.#key) ?? this.#value;
    } catch {
      return this.#value;
    }
  }

  /** Keeps a value; null forgets it. */
  set(value) {
    this.#value = value;
    try {
      if (value === null) globalThis[this.#storage].removeItem(this.#key);
      else globalThis[this.#storage].setItem(this.#key, value);
    } catch {
      // it is kept here
    }
  }
}
