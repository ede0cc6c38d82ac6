import type { TokenSource } from "./types.js";

/** The token in use; a new one is asked for only when it is needed. */
export class Tokens {
  #token: string | undefined;
  #expiresAt = 0;
  #refused = false;
  readonly #source: TokenSource;

  constructor(source: TokenSource) {
    this.#source = source;
  }

  async get(): Promise<string> {
    if (!this.#token || (this.#expiresAt && Date.now() / 1000 >= this.#expiresAt)) {
      const source = this.#source;
      this.#token = typeof source === "string" ? source : await source({ refused: this.#refused });
      this.#expiresAt = 0;
    }
    return this.#token;
  }

  /** Whether there is one token only. */
  get fixed(): boolean {
    return typeof this.#source === "string";
  }

  /** The token was accepted; `expiresAt` in seconds since the epoch. */
  accepted(expiresAt = 0): void {
    this.#expiresAt = expiresAt;
    this.#refused = false;
  }

  /** Forgets the token, so that the next one is new. */
  renew(): void {
    this.#token = undefined;
  }

  /** The token was refused; whether another one may be tried. */
  refused(): boolean {
    if (this.#refused || this.fixed) return false;
    this.#refused = true;
    this.renew();
    return true;
  }
}
