/**
 * Where a notification leads, as an address that may be followed: http, https, or a path of the
 * page. Anything else, such as `javascript:`, is data of a stranger that would be run as a program.
 *
 * @returns undefined where there is none
 */
export function link(url: unknown, base: string): string | undefined {
  if (typeof url !== "string" || !url) return undefined;
  try {
    const { protocol, href } = new URL(url, base);
    return /^https?:$/.test(protocol) ? href : undefined;
  } catch {
    return undefined;
  }
}
