import type { ErrorClass, PushError } from "./errors.js";
import type { Settings } from "./settings.js";

/**
 * Why a page gets no connection, as far as it can know: its browser tells it nothing of a handshake
 * that is refused, and of an answer that it may not read the same as of none.
 *
 * It costs a node up to three requests, without a preflight.
 *
 * @param error how the attempt ended
 * @param met whether there was a connection before
 * @param stale whether nobody wants to know any more
 */
export function diagnosis(PushError: ErrorClass) {
  return async (
    settings: Settings,
    error: PushError,
    met: boolean,
    stale: () => boolean,
  ): Promise<PushError> => {
    const { url, timing, fetch = globalThis.fetch } = settings;
    const { origin, protocol } = location;
    const script = `${url}/client.js`;
    /** Whether the last one got no answer in time. */
    let late = false;
    const ask = async (address: string, mode: RequestMode = "cors") => {
      if (stale()) return undefined;
      const signal = AbortSignal.timeout(timing.open);
      const init: RequestInit = { method: "HEAD", mode, cache: "no-store", signal };
      const answer = await fetch(address, init).catch(() => undefined);
      late = signal.aborted;
      return answer;
    };
    const good = (answer?: Response) =>
      /javascript/.test(answer?.headers.get("Content-Type") ?? "");
    const why = (code: string, message: string) => new PushError(code, message);

    // Every node serves this to pages of every origin.
    const served = await ask(script);
    if (good(served)) {
      // And this only to those that may connect, be it to say that it is no request.
      if (await ask(`${url}/v1/poll`)) return error;
      // What is slow, or died meanwhile, refuses nobody.
      if (late || !good(await ask(script))) return why("lost", `${url} does not answer any more`);
      return why(
        "origin_refused",
        /^http/.test(origin)
          ? `${url} refuses pages of ${origin}, most likely: add this origin to its setting PUSHSVC_ALLOWED_ORIGINS`
          : `${url} refuses pages without an origin, such as files: serve this one over http or https`,
      );
    }
    if (served || (!late && (await ask(script, "no-cors")))) {
      return why("unusable", `what answers at ${url} is no node, or a proxy that reaches none`);
    }
    const other = url.replace(/^http(s?)/i, (_, secure) => (secure ? "http" : "https"));
    if (protocol === "https:" && /^http:(?!..(localhost|127\.|\[::1\]))/i.test(url)) {
      return why("lost", `browsers let no https page connect to ${url}: use ${other}, with TLS`);
    }
    if (!met && (await ask(`${other}/client.js`, "no-cors"))) {
      return why("lost", `nothing answers at ${url}, but ${other} does: use that`);
    }
    return why("lost", `nothing answers at ${url}: is a node running there, and is this its port?`);
  };
}
