// The geometry of a chart. Pure.

/** A round number that is not below `value`, and how many parts an axis has up to it. */
export function niceTop(value, least = 0) {
  const wanted = Math.max(value, least);
  if (!(wanted > 0)) return { top: 1, parts: 2 };
  const power = 10 ** Math.floor(Math.log10(wanted));
  for (const [step, parts] of [[1, 2], [1.2, 3], [1.5, 3], [2, 2], [2.5, 5], [3, 3], [4, 4], [5, 5], [6, 3], [8, 4], [10, 2]]) {
    if (wanted <= step * power * (1 + 1e-9)) return { top: step * power, parts };
  }
  return { top: 10 * power, parts: 2 };
}

/** Where `value` of the range `from`..`to` lies between `low` and `high`. */
export function place(value, from, to, low, high) {
  return low + ((value - from) / (to - from)) * (high - low);
}

/** The path through `[x, y]` pairs; a null is a hole, and a point between two holes is drawn as a dot. */
export function path(pairs) {
  let d = "";
  let run = 0;
  for (const pair of pairs) {
    if (pair === null) {
      if (run === 1) d += "h0";
      run = 0;
    } else {
      d += `${run ? "L" : "M"}${pair[0].toFixed(1)} ${pair[1].toFixed(1)}`;
      run += 1;
    }
  }
  return run === 1 ? `${d}h0` : d;
}

/** The index of the point whose `at` is nearest; -1 of none. */
export function nearest(points, at) {
  let best = -1;
  points.forEach((point, index) => {
    if (best < 0 || Math.abs(point.at - at) < Math.abs(points[best].at - at)) best = index;
  });
  return best;
}
