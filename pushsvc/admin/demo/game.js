// A game: everyone's position, 20 times a second, to everyone else.
//
// Positions are ephemeral: never stored, and dropped first for a player whose connection is slow.
// The next one is only 50 ms away, and an old one is worth nothing.
import { $, client, showState, title } from "./shared.js";

const TOPIC = "game.arena";
const HZ = 20;
const [WIDTH, HEIGHT] = [48, 19];
const MARGIN = 1.6; // around what is shown, so that nobody is cut off at an edge
const GONE = 1000; // ms without a position after which a player is not shown
const KEYS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

class Player {
  x = Math.random() * WIDTH;
  y = Math.random() * HEIGHT;
  direction = Math.random() * 2 * Math.PI;
  others = new Map();
  received = 0;

  constructor(name) {
    this.name = name;
    this.view = $("#player").content.cloneNode(true).firstElementChild;
    this.view.classList.add(name);
    $("h2", this.view).textContent = title(name);
    this.field = $(".field", this.view);
    this.field.ariaLabel = `${title(name)}'s field: move with the arrow keys`;
    $("#players").append(this.view);
    this.field.addEventListener("pointermove", (event) => {
      const { left, top, width, height } = this.field.getBoundingClientRect();
      const x = ((event.clientX - left) / width) * (WIDTH + 2 * MARGIN) - MARGIN;
      const y = ((event.clientY - top) / height) * (HEIGHT + 2 * MARGIN) - MARGIN;
      this.moveTo(inside(x, WIDTH), inside(y, HEIGHT));
    });
    this.field.addEventListener("keydown", (event) => {
      const [x, y] = KEYS[event.key] ?? [];
      if (x === undefined) return;
      event.preventDefault();
      this.moveTo(this.x + x, this.y + y);
    });

    this.push = client(name, "game.*", { topics: [TOPIC] });
    this.push.on("notification", ({ ephemeral, from, data }) => {
      if (!ephemeral || from === name) return;
      this.others.set(from, { at: data, seen: performance.now() });
      this.received += 1;
    });
    showState(this.push, $(".state", this.view));
    setInterval(() => this.tick(), 1000 / HZ);
    setInterval(() => this.showRate(), 1000);
    this.draw();
  }

  moveTo(x, y) {
    this.x = (x + WIDTH) % WIDTH;
    this.y = (y + HEIGHT) % HEIGHT;
  }

  tick() {
    if ($("#walk").checked) {
      this.direction += Math.random() * 0.8 - 0.4;
      this.moveTo(this.x + (8 / HZ) * Math.cos(this.direction), this.y + (8 / HZ) * Math.sin(this.direction));
    }
    // Nothing is queued for a connection that is away: it would be old when it is back.
    if (this.push.state.status === "connected") {
      const position = [this.x, this.y].map((each) => Math.round(each * 10) / 10);
      this.push.publish(TOPIC, position, { ephemeral: true });
    }
  }

  draw() {
    const now = performance.now();
    const seen = [[this.name, { at: [this.x, this.y], seen: now }], ...this.others];
    for (const [name, { at, seen: when }] of seen) {
      let dot = this.field.querySelector(`[data-name="${CSS.escape(name)}"]`);
      if (now - when > GONE) {
        dot?.remove();
        this.others.delete(name);
        continue;
      }
      dot ??= this.field.appendChild(circle(name, name === this.name));
      dot.setAttribute("transform", `translate(${at[0]} ${at[1]})`);
      dot.lastChild.setAttribute("y", at[1] < 3 ? 2.7 : -1.4); // inside the field
    }
    requestAnimationFrame(() => this.draw());
  }

  showRate() {
    const others = [...this.others.keys()];
    const from = others.length > 1 ? `each of ${others.length}` : title(others[0] ?? "nobody");
    const rate = Math.round(this.received / (others.length || 1));
    $(".rate", this.view).textContent = `${rate} positions/s from ${from}`;
    this.received = 0;
  }
}

/** The place in the field that is nearest: who points at the margin does not come in on the other side. */
const inside = (at, size) => Math.min(Math.max(at, 0), size - 0.1);

/** A player: a circle, and a name. */
function circle(name, own) {
  const make = (tag) => document.createElementNS("http://www.w3.org/2000/svg", tag);
  const [group, dot, label] = [make("g"), make("circle"), make("text")];
  group.setAttribute("class", name);
  group.dataset.name = name;
  dot.setAttribute("r", own ? 1.1 : 0.8);
  label.textContent = own ? "you" : title(name);
  group.append(dot, label);
  return group;
}

$("#walk").checked = !matchMedia("(prefers-reduced-motion: reduce)").matches;
for (const name of ["anna", "ben"]) new Player(name);
