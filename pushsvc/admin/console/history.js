// The last minutes, from counters that only grow: rates and quantiles over a short window. Pure: the time is passed in.
// A node tells of itself every other second, so a reading is of the time that the node gives, not of when it was read.

import { difference, merge, quantile } from "./histogram.js";

/** Seconds over which rates and quantiles are taken: several of a node's readings, and still now. */
export const WINDOW = 8;
/** Seconds that are kept. */
export const SPAN = 300;

/** The process behind a node's counters. A node that lost its lease has a new id and the old counters. */
export function processOf(node) {
  return node.started === null ? node.node : `${node.host}/${node.pid}/${node.started}`;
}

/** Per second, for each counter; null where one fell, as after a restart. */
export function rates(after, before, seconds) {
  if (!(seconds > 0)) return null;
  const result = {};
  for (const [name, value] of Object.entries(after)) {
    const grown = value - (before[name] ?? 0);
    if (grown < 0) return null;
    result[name] = grown / seconds;
  }
  return result;
}

/** The sum of each name; null of none. */
export function sum(parts) {
  if (!parts.length) return null;
  const total = {};
  for (const part of parts) {
    for (const [name, value] of Object.entries(part)) total[name] = (total[name] ?? 0) + value;
  }
  return total;
}

/** Readings of the overview, and the points that follow from them. */
export class History {
  #readings = new Map(); // by process: `{at, node}`, oldest first, for the window
  /** Points, oldest first; those without an answer are `missing`. Bounded by `SPAN`. */
  points = [];
  /** The newest rates and histograms of each node that speaks, by its id. */
  nodes = new Map();

  /** Takes an answer that came at `at` (seconds), and returns its point. */
  add(overview, at) {
    const kept = this.#readings;
    this.#readings = new Map();
    this.nodes = new Map();
    for (const node of overview.nodes) {
      const readings = recent(kept.get(processOf(node)) ?? [], { at: node.time ? Date.parse(node.time) / 1000 : at, node });
      this.#readings.set(processOf(node), readings);
      if (!node.silent) this.nodes.set(node.node, change(readings[0], readings.at(-1)));
    }
    const parts = [...this.nodes.values()];
    const quantiles = (name) => {
      const all = merge(parts.map((part) => part[name]));
      return { p50: quantile(all, 0.5), p99: quantile(all, 0.99) };
    };
    const point = {
      at,
      connections: overview.nodes.reduce((total, node) => total + (node.silent ? 0 : node.connections), 0),
      rates: sum(parts.map((part) => part.rates).filter(Boolean)),
      deliver: quantiles("deliver"),
      ack: quantiles("ack"),
      lag: quantiles("lag"),
    };
    this.#push(point);
    return point;
  }

  /** Marks that no answer came: a chart has a hole there. */
  miss(at) {
    if (this.points.length && !this.points.at(-1).missing) this.#push({ at, missing: true });
  }

  #push(point) {
    this.points = [...this.points.filter(({ at }) => at > point.at - SPAN), point];
  }
}

// The readings of a process with a new one. One from before the window stays, so that there is always something to
// compare with; where the clock was set back they begin anew.
function recent(readings, reading) {
  const last = readings.at(-1);
  if (last?.at === reading.at) return readings;
  if (last?.at > reading.at) return [reading];
  const all = [...readings, reading];
  const first = all.findIndex(({ at }) => at >= reading.at - WINDOW);
  return all.slice(Math.min(first, Math.max(all.length - 2, 0)));
}

function change(before, after) {
  const { latency: was, loop_lag: lagWas, totals } = before.node;
  const { latency: is, loop_lag: lagIs } = after.node;
  return {
    rates: rates(after.node.totals, totals, after.at - before.at),
    deliver: difference(is.deliver, was.deliver),
    ack: difference(is.ack, was.ack),
    lag: difference(lagIs, lagWas),
  };
}
