// All nodes at a glance: is it well, how much goes through, how fast.

import { Together } from "../charts.js";
import { announce, h, replace } from "../dom.js";
import { ago, amount, count, duration, plural } from "../format.js";
import { badge, Page } from "../parts.js";

const rate = (name) => (point) => point.rates?.[name] ?? null;
const perSecond = (value) => `${amount(value)}/s`;

const CHARTS = [
  { title: "Connections", format: amount, least: 4, series: [{ label: "open", value: (point) => point.connections }] },
  { title: "Throughput, per second", format: amount, least: 2, series: [
    { label: "published", value: rate("published") }, { label: "delivered", value: rate("delivered") }, { label: "acked", value: rate("acked") }] },
  { title: "Delivery: accepted to sent", format: duration, least: 0.002, series: [
    { label: "p50", value: (point) => point.deliver.p50 }, { label: "p99", value: (point) => point.deliver.p99 }] },
  { title: "Ack: accepted to acked", format: duration, least: 0.002, series: [
    { label: "p50", value: (point) => point.ack.p50 }, { label: "p99", value: (point) => point.ack.p99 }] },
  { title: "Loop lag", format: duration, least: 0.002, series: [
    { label: "p50", value: (point) => point.lag.p50 }, { label: "p99", value: (point) => point.lag.p99 }] },
  { title: "Errors and gaps, per second", format: amount, least: 1, series: [
    { label: "gaps", value: rate("gaps") }, { label: "client errors", value: rate("client_errors") }, { label: "Redis errors", value: rate("redis_errors") }] },
];

const of = (name) => (node, part) => part?.rates?.[name] ?? -1;
const COLUMNS = [
  ["Node", (node) => node.node],
  ["State", (node) => Number(node.ready)],
  ["Host", (node) => `${node.host ?? ""} ${node.pid ?? ""}`],
  ["Version", (node) => node.version ?? ""],
  ["Up for", (node) => -Date.parse(node.started ?? Date())],
  ["Connections", (node) => node.connections],
  ["Published", of("published")],
  ["Delivered", of("delivered")],
  ["Acked", of("acked")],
];
const NUMBERS = new Set(["Up for", "Connections", "Published", "Delivered", "Acked"]);

/** The state of all nodes in one sentence, and its tone. */
export function headline({ answer, at, problem, stale }, now) {
  if (!answer) return problem ? ["bad", problem.message] : ["idle", "Asking the nodes…"];
  if (stale) return ["bad", `Stale: ${problem.message} The last answer came ${ago(at, now)}.`];
  const troubled = answer.nodes.filter((node) => !node.ready || node.troubles.length);
  if (!answer.nodes.length) return ["bad", "No node is alive."];
  if (!troubled.length) return ["ok", ["", "The node is ready.", "Both nodes are ready."][answer.nodes.length] ?? `All ${answer.nodes.length} nodes are ready.`];
  const told = troubled.map((node) => `${node.node}: ${node.troubles.join(", ") || "not ready"}`).join("; ");
  const unready = answer.nodes.filter((node) => !node.ready).length;
  const silent = answer.nodes.filter((node) => node.silent).length;
  if (!unready) return ["warn", `${plural(troubled.length, "node")} with trouble (${told}).`];
  const what = silent === unready ? `${silent === 1 ? "is" : "are"} silent` : "not ready";
  return [unready === answer.nodes.length ? "bad" : "warn", `${unready} of ${plural(answer.nodes.length, "node")} ${what} (${told}).`];
}

/** The view `#/`. */
export function overviewView(app) {
  const page = new Page("Overview", null);
  const status = h("p", { class: "headline" });
  const tiles = h("dl", { class: "tiles" });
  const head = h("tr");
  const rows = h("tbody");
  const charts = new Together();
  const drawn = CHARTS.map((options) => charts.chart(options).element);
  const order = { column: 0, down: false };
  page.body.append(
    status,
    tiles,
    h("section", { class: "stack", "aria-labelledby": "charts" },
      h("h2", { id: "charts" }, "The last minutes"), h("div", { class: "charts" }, drawn)),
    h("section", { class: "stack", "aria-labelledby": "nodes" }, h("h2", { id: "nodes" }, "Nodes"),
      h("div", { class: "scroll", tabindex: 0, role: "group", "aria-label": "Table: Nodes" },
        h("table", {}, h("caption", { class: "unseen" }, "Nodes, with what each does per second"), h("thead", {}, head), rows))),
  );

  let said = "";
  page.update = (overview) => {
    const [tone, words] = headline(overview, Date.now());
    status.replaceChildren(badge(tone, words));
    if (tone + overview.answer?.nodes.length !== said) { // not for every tick
      if (said) announce(words);
      said = tone + overview.answer?.nodes.length;
    }
    page.body.classList.toggle("stale", overview.stale);
    charts.update(app.history.points, Date.now() / 1000);
    if (!overview.answer) return;
    page.saw("overview", overview.answer);
    const point = app.history.points.findLast((each) => !each.missing);
    replace(tiles, tilesOf(overview.answer, point));
    replace(head, headsOf(order, () => page.update(overview)));
    if (!selecting(rows)) replace(rows, rowsOf(overview.answer.nodes, app.history.nodes, order));
  };
  return page;
}

function tilesOf(answer, point) {
  const total = (name) => answer.nodes.reduce((all, node) => all + (node.totals[name] ?? 0), 0);
  const perSecondTile = (label, name) => tile(label, amount(point?.rates?.[name]), "/s", `${count(total(name))} since the ${answer.nodes.length === 1 ? "node" : "nodes"} started`);
  return [
    tile("Connections", count(point?.connections), "", plural(answer.nodes.length, "node")),
    perSecondTile("Published", "published"),
    perSecondTile("Delivered", "delivered"),
    perSecondTile("Acked", "acked"),
    tile("Delivery, p99", ...split(duration(point?.deliver.p99)), `p50 ${duration(point?.deliver.p50)}`),
    tile("Loop lag, p99", ...split(duration(point?.lag.p99)), `p50 ${duration(point?.lag.p50)}`),
    tile("Gaps told", count(total("gaps")), "", `${amount(point?.rates?.gaps)}/s`),
    tile("Errors", count(total("client_errors") + total("redis_errors")), "", `${count(total("redis_errors"))} of Redis`),
  ];
}

const split = (text) => /^(\S+)(.*)$/.exec(text).slice(1);

function tile(label, value, unit, more) {
  return h("div", { class: "tile" }, h("dt", {}, label), h("dd", {}, h("b", {}, value), unit, h("small", {}, more)));
}

// Whoever copies something out of the table is not interrupted.
function selecting(element) {
  const selection = getSelection();
  return selection.type === "Range" && element.contains(selection.anchorNode);
}

function headsOf(order, sorted) {
  return COLUMNS.map(([label], index) => {
    const chosen = index === order.column;
    const sort = () => {
      order.down = chosen ? !order.down : NUMBERS.has(label);
      order.column = index;
      sorted();
    };
    return h("th", { scope: "col", class: NUMBERS.has(label) ? "number" : null, "aria-sort": chosen ? (order.down ? "descending" : "ascending") : null },
      h("button", { type: "button", class: "sort", "data-key": `sort-${index}`, onclick: sort }, label,
        h("span", { class: "arrow", "aria-hidden": "true" }, chosen ? (order.down ? "▼" : "▲") : "")));
  });
}

function rowsOf(nodes, parts, order) {
  const value = (node) => COLUMNS[order.column][1](node, parts.get(node.node));
  const rows = nodes.toSorted((a, b) => {
    const [first, second] = order.down ? [value(b), value(a)] : [value(a), value(b)];
    return first < second ? -1 : Number(first > second);
  });
  return rows.map((node) => nodeRow(node, parts.get(node.node)));
}

function nodeRow(node, part) {
  const troubles = node.troubles.join(", ");
  const number = (text) => h("td", { class: "number" }, text);
  return h("tr", {},
    h("th", { scope: "row" }, h("code", {}, node.node)),
    h("td", {}, node.ready ? badge(troubles ? "warn" : "ok", troubles || "ready") : badge("bad", troubles || "not ready")),
    h("td", {}, node.host ?? "–", node.pid === null ? null : h("span", { class: "soft" }, ` pid ${node.pid}`)),
    h("td", {}, node.version ?? "–"),
    number(node.started === null ? "–" : duration((Date.now() - Date.parse(node.started)) / 1000)),
    number(count(node.connections)),
    number(part?.rates ? perSecond(part.rates.published) : "–"),
    number(part?.rates ? perSecond(part.rates.delivered) : "–"),
    number(part?.rates ? perSecond(part.rates.acked) : "–"));
}
