import type { TokenSource } from "./types.js";

/** The token, if it can be one: what a placeholder or a file's line end leaves is told at once. */
function checked(token: string): string {
  if (/[^!-~]/.test(token)) throw new TypeError("the token has a character that no token has");
  return token;
}

/** The token in use; a new one is asked for only when it is needed. */
export class Tokens {
  #token: string | undefined;
  #expiresAt = 0;
  /** 2 for each refusal in a row, 1 for those up to one that said how long to wait. */
  #refused = 0;
  readonly #source: TokenSource;

  constructor(source: TokenSource) {
    this.#source = typeof source === "string" ? checked(source) : source;
  }

  async get(): Promise<string> {
    if (!this.#token || (this.#expiresAt && Date.now() / 1000 >= this.#expiresAt)) {
      const source = this.#source;
      this.#token =
        typeof source === "string" ? source : checked(await source({ refused: !!this.#refused }));
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
    this.#refused = 0;
  }

  /** Forgets the token, so that the next one is new. */
  renew(): void {
    this.#token = undefined;
  }

  /** A request with this token was refused, which is no reason to end the client. */
  doubt(token: string): void {
    if (token !== this.#token) return; // there is a newer one
    this.renew();
    this.#refused ||= 1;
  }

  /**
   * The token was refused; whether another one may be tried. Where the server says when a new one
   * will be good, one that was got before then is none.
   */
  refused(retryAfter?: number): boolean {
    this.renew();
    this.#refused = retryAfter ? 1 : this.#refused + 2;
    return this.#refused < 4 && !this.fixed;
  }
}
