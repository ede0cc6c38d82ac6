// A ticker: the latest price of each share first, and then every change.
//
// Each price has its share as `collapse_key`: in the topic it replaces the one before. So the topic
// holds one price a share, however many were published, and that is what a newcomer is sent first.
import { $, Backend, client, el, pause, showState, title } from "./shared.js";

const TOPIC = "ticker.exchange";
const PAUSE = 400; // ms between two prices

class Board {
  prices = new Map();
  states = 0;
  changes = 0;

  constructor(name) {
    this.view = $("#board").content.cloneNode(true).firstElementChild;
    this.view.classList.add(name);
    $("h2", this.view).textContent = title(name);
    $(".list", this.view).ariaLabel = `What ${title(name)} was told`;
    $("#boards").append(this.view);
    this.push = client(name, "ticker.*");
    showState(this.push, $(".state", this.view));
    this.push.on("notification", (message) => message.event === "price" && this.told(message));
    // Without `since`: the state, then the changes. What is newer than `last` is a change.
    this.last = this.push.subscribe(TOPIC).then((answer) => answer.last);
  }

  async told({ id, data: { share, price } }) {
    const change = compare(id, await this.last) > 0;
    const before = this.prices.get(share);
    this.prices.set(share, price);
    if (change) this.changes += 1;
    else this.states += 1;
    $(".told", this.view).textContent = `${this.states} kept, then ${this.changes} new`;
    const list = $(".list", this.view);
    list.append(el("li", {}, `${share} ${price.toFixed(2)}`, el("small", {}, change ? "new" : "kept")));
    if (list.children.length > 100) list.firstChild.remove();
    list.scrollTop = list.scrollHeight;
    this.show(share, before === undefined ? 0 : price - before);
  }

  show(share, move) {
    const table = $("tbody", this.view);
    let row = table.querySelector(`[data-share="${CSS.escape(share)}"]`);
    if (!row) {
      row = el("tr", {}, el("th", { scope: "row" }, share), el("td", { className: "number" }), el("td"));
      row.dataset.share = share;
      table.append(row);
    }
    row.children[1].textContent = this.prices.get(share).toFixed(2);
    row.children[2].className = `number ${move < 0 ? "down" : "up"}`;
    row.children[2].textContent = move ? `${move > 0 ? "▲ +" : "▼ "}${move.toFixed(2)}` : "";
  }
}

/** Ids are compared by their two numbers. */
function compare(one, other) {
  const [a, b, c, d] = `${one}-${other}`.split("-").map(Number);
  return a - c || b - d;
}

/** The exchange: it publishes over HTTP, with the scope `push.publish`, as a backend does. */
class Exchange {
  prices = { ACME: 120, GLOBEX: 75.5, INITECH: 9.8, UMBRELLA: 310 };
  published = 0;
  isOpen = false;
  #backend = new Backend("exchange");

  async run() {
    const shares = Object.keys(this.prices);
    while (this.isOpen) {
      const share = shares[this.published % shares.length];
      this.prices[share] = Math.round(this.prices[share] * (0.97 + Math.random() * 0.06) * 100) / 100;
      await this.#backend.publish({
        to: { topic: TOPIC },
        event: "price",
        collapse_key: share,
        data: { share, price: this.prices[share] },
      });
      this.published += 1;
      $("#count").textContent = `${this.published} prices were published.`;
      await pause(PAUSE);
    }
  }
}

const exchange = new Exchange();
$("#open").addEventListener("click", () => {
  exchange.isOpen = !exchange.isOpen;
  $("#open").textContent = exchange.isOpen ? "Close the exchange" : "Open the exchange";
  if (exchange.isOpen) exchange.run();
});
$("#join").addEventListener("click", () => {
  $("#join").disabled = true;
  new Board("ben");
});
new Board("anna");
