// Line charts of the last minutes, as SVG, with a table of the same numbers.

import { h, svg } from "./dom.js";
import { clock } from "./format.js";
import { SPAN } from "./history.js";
import { nearest, niceTop, path, place } from "./scale.js";

const HEIGHT = 168;
const LEFT = 52;
const RIGHT = 10;
const TOP = 8;
const BOTTOM = 22;
const ROWS = 20;

/** Charts that point at the same moment. */
export class Together {
  #charts = [];

  /** A chart of this group. */
  chart(options) {
    const chart = new Chart({ ...options, point: (at) => this.#charts.forEach((each) => each.point(at)) });
    this.#charts.push(chart);
    return chart;
  }

  /** Draws all of them again. */
  update(points, now) {
    for (const chart of this.#charts) chart.update(points, now);
  }
}

/**
 * One chart.
 *
 * `title`; `format`, of a value, for the axis and the legend; `least`, the smallest top of the axis;
 * `series`, a list of `{label, value(point)}`, where null is a hole; `point(at)` is called with the moment
 * that the reader points at, null of none.
 */
class Chart {
  #options;
  #points = [];
  #now = 0;
  #at = null;
  #width = 0;
  #drawing = svg("svg", { class: "plot", height: HEIGHT, role: "img" });
  #tip = h("div", { class: "tip", hidden: true });
  #values;

  constructor(options) {
    this.#options = options;
    this.#values = options.series.map(() => h("output", {}, "–"));
    const plot = h("div", {
      class: "plot-box",
      tabindex: 0,
      role: "group",
      "aria-label": `${options.title}: chart of the last minutes. Left and right arrow keys read the values.`,
      onpointermove: (event) => this.#pointed(event.clientX - this.#drawing.getBoundingClientRect().left),
      onpointerleave: () => options.point(null),
      onblur: () => { options.point(null); this.#tip.removeAttribute("role"); },
      onkeydown: (event) => this.#pressed(event),
    }, this.#drawing, this.#tip);
    const body = h("div");
    this.element = h("figure", { class: "chart" },
      h("figcaption", {},
        h("h3", {}, options.title),
        h("ul", { class: "legend" }, options.series.map((series, index) =>
          h("li", {}, sample(index), `${series.label} `, this.#values[index])))),
      plot,
      h("details", { ontoggle: (event) => body.replaceChildren(event.target.open ? this.#table() : "") },
        h("summary", {}, "Numbers", h("span", { class: "unseen" }, `: ${options.title}`)), body));
    new ResizeObserver(([entry]) => {
      this.#width = Math.floor(entry.contentRect.width);
      this.#draw();
    }).observe(plot);
  }

  /** Draws these points; `now` is the right end, in seconds. */
  update(points, now) {
    this.#points = points;
    this.#now = now;
    const last = points.at(-1);
    this.#options.series.forEach((series, index) => { this.#values[index].textContent = this.#told(series, last); });
    this.#draw();
  }

  /** Shows the values of a moment, in seconds; of none with null. */
  point(at) {
    this.#at = at;
    this.#draw();
  }

  #told(series, point) {
    const value = !point || point.missing ? null : series.value(point);
    return value == null ? "–" : this.#options.format(value);
  }

  #x(at) {
    return place(at, this.#now - this.#span, this.#now, LEFT, this.#width - RIGHT);
  }

  // As many whole minutes as there are points for.
  get #span() {
    const known = this.#points.length ? this.#now - this.#points[0].at : 0;
    return Math.min(SPAN, Math.max(60, 60 * Math.ceil(known / 60)));
  }

  #draw() {
    if (this.#width < LEFT + RIGHT + 40) return;
    const { series, format, least, title } = this.#options;
    const points = this.#points.filter(({ at }) => at >= this.#now - this.#span);
    const lines = series.map(({ value }) => points.map((point) => (point.missing ? null : value(point) ?? null)));
    const { top, parts } = niceTop(Math.max(0, ...lines.flat().filter((value) => value !== null)), least);
    const y = (value) => place(value, 0, top, HEIGHT - BOTTOM, TOP);
    const grid = Array.from({ length: parts + 1 }, (_, index) => (top / parts) * index);
    this.#drawing.setAttribute("width", this.#width);
    this.#drawing.setAttribute("aria-label", `${title}. ${series.map((each, index) => `${each.label}: ${this.#values[index].textContent}`).join(", ")}.`);
    this.#drawing.replaceChildren(
      ...grid.map((value) => svg("line", { class: value ? "grid" : "axis", x1: LEFT, x2: this.#width - RIGHT, y1: y(value), y2: y(value) })),
      ...grid.map((value) => svg("text", { class: "tick end", x: LEFT - 6, y: y(value) + 4 }, value ? format(value) : "0")),
      ...this.#times().map(([at, words, anchor]) => svg("text", { class: `tick ${anchor}`, x: this.#x(at), y: HEIGHT - 5 }, words)),
      ...lines.map((values, index) =>
        svg("path", { class: `line s${index}`, d: path(values.map((value, i) => (value === null ? null : [this.#x(points[i].at), y(value)]))) })),
    );
    this.#pointer(points, lines, y);
  }

  #times() {
    const [unit, step] = this.#span > 60 ? ["min", 60] : ["s", 15];
    const marks = Array.from({ length: this.#span / step }, (_, index) => this.#span - step * index);
    return [
      ...marks.map((seconds, index) => {
        const number = `−${unit === "min" ? seconds / 60 : seconds}`;
        return [this.#now - seconds, index ? number : `${number} ${unit}`, index ? "middle" : "start"];
      }),
      [this.#now, "now", "end"],
    ];
  }

  #pointer(points, lines, y) {
    const index = this.#at === null ? -1 : nearest(points, this.#at);
    const point = points[index];
    this.#tip.hidden = !point || Math.abs(point.at - this.#at) > this.#span / 20;
    if (this.#tip.hidden) return;
    const x = this.#x(point.at);
    this.#drawing.append(
      svg("line", { class: "cross", x1: x, x2: x, y1: TOP, y2: HEIGHT - BOTTOM }),
      ...lines.flatMap((values, each) =>
        (values[index] === null ? [] : [svg("circle", { class: `dot s${each}`, cx: x, cy: y(values[index]), r: 3.5 })])),
    );
    this.#tip.replaceChildren(
      h("b", {}, clock(point.at * 1000)),
      ...this.#options.series.map((series, each) => h("div", {}, sample(each), `${series.label} `, h("span", {}, this.#told(series, point)))),
    );
    const width = this.#tip.offsetWidth;
    const left = x + 12 + width > this.#width ? x - 12 - width : x + 12;
    this.#tip.style.transform = `translate(${Math.max(0, Math.round(left))}px, ${TOP}px)`;
  }

  #pointed(x) {
    if (this.#width) this.#options.point(place(x, LEFT, this.#width - RIGHT, this.#now - this.#span, this.#now));
  }

  #pressed(event) {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (event.key === "Escape") this.#options.point(null);
    if (!step || !this.#points.length) return;
    event.preventDefault();
    this.#tip.setAttribute("role", "status"); // read out for who cannot see the cross
    const index = this.#at === null ? this.#points.length - 1 : nearest(this.#points, this.#at) + step;
    this.#options.point(this.#points[Math.min(Math.max(index, 0), this.#points.length - 1)].at);
  }

  // The table stands still once it is open: one that changes every second cannot be read.
  #table() {
    const { title, series } = this.#options;
    const every = Math.max(1, Math.ceil(this.#points.length / ROWS));
    const rows = this.#points.filter((_, index) => (this.#points.length - 1 - index) % every === 0).reverse();
    return h("div", { class: "scroll", tabindex: 0, role: "group", "aria-label": `Numbers: ${title}` },
      h("table", { class: "small" },
        h("caption", {}, `${title}, as of ${clock(this.#now * 1000)}; close and open it again for newer numbers`),
        h("thead", {}, h("tr", {}, h("th", { scope: "col" }, "Time"), series.map(({ label }) => h("th", { scope: "col", class: "number" }, label)))),
        h("tbody", {}, rows.map((point) => h("tr", {},
          h("th", { scope: "row" }, clock(point.at * 1000)),
          series.map((each) => h("td", { class: "number" }, this.#told(each, point))))))));
  }
}

// What a line looks like, for the legend: the dashes tell it apart without the colour.
function sample(index) {
  return svg("svg", { class: "sample", viewBox: "0 0 18 8", width: 18, height: 8, "aria-hidden": "true" },
    svg("path", { class: `line s${index}`, d: "M1 4H17" }));
}
