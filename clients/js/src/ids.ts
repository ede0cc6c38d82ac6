/** Whether a value is an id. */
export function valid(id: unknown): boolean {
  return /^\d+-\d+$/.test(id as string);
}

/**
 * Compares two ids of one feed, `<milliseconds>-<sequence>`, by their numbers.
 *
 * @returns below 0, 0 or above 0, as for `Array.prototype.sort`
 */
export function compare(a: string, b: string): number {
  const [x = 0, i = 0] = a.split("-").map(Number);
  const [y = 0, j = 0] = b.split("-").map(Number);
  return x - y || i - j;
}
