// Histograms as the nodes tell them: `counts[i]` observations were at most `bounds[i]` seconds, and the last count is of
// all there were. Pure.

/**
 * What was observed between two readings of one process, or null where they are not of one series:
 * a counter that fell was started anew.
 */
export function difference(after, before) {
  if (before.counts.length !== after.counts.length) return null;
  const counts = after.counts.map((count, index) => count - before.counts[index]);
  return counts.some((count) => count < 0) ? null : { bounds: after.bounds, counts };
}

/**
 * Several as one; null of none. What is null or empty counts for nothing, and those with other bounds than the first
 * are left out: nodes of another version.
 */
export function merge(histograms) {
  const [first, ...rest] = histograms.filter((histogram) => histogram?.bounds.length);
  if (!first) return null;
  const counts = [...first.counts];
  for (const { bounds, counts: more } of rest) {
    if (bounds.length === first.bounds.length && bounds.every((bound, index) => bound === first.bounds[index])) {
      more.forEach((count, index) => { counts[index] += count; });
    }
  }
  return { bounds: first.bounds, counts };
}

/** How many observations there are. */
export function observations(histogram) {
  return histogram?.counts.at(-1) ?? 0;
}

/**
 * The value below which the part `q` (0 to 1) of the observations lies: linear within a bucket, as Prometheus has it.
 * Beyond the last bound it is that bound. Null without observations.
 */
export function quantile(histogram, q) {
  const all = observations(histogram);
  if (all <= 0) return null;
  const { bounds, counts } = histogram;
  const rank = q * all;
  const index = counts.findIndex((count) => count >= rank && count > 0);
  if (index >= bounds.length) return bounds.at(-1) ?? null;
  const low = index === 0 ? 0 : bounds[index - 1];
  const below = index === 0 ? 0 : counts[index - 1];
  return low + (bounds[index] - low) * ((rank - below) / (counts[index] - below));
}
