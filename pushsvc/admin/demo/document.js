// A shared document: ordered edits, live cursors, and a late joiner who ends up with the same text.
//
// The edits in the topic, in the order of the server, are the truth. Nobody applies an edit before
// it came back from there, so when two people change a line at once, everyone sees the same: the
// later of the two. A document that lives long also needs a snapshot now and then.
import { $, client, el, showState, title } from "./shared.js";

const TOPIC = "doc.shopping";
const copies = [];

class Copy {
  lines = [];
  edits = []; // the ids of the edits in it
  cursors = new Map();

  constructor(name) {
    this.name = name;
    this.view = $("#copy").content.cloneNode(true).firstElementChild;
    this.view.classList.add(name);
    $("h2", this.view).textContent = title(name);
    const online = $("[role=switch]", this.view);
    online.ariaLabel = `${title(name)} is online`;
    online.addEventListener("change", () => (online.checked ? this.open() : this.push.close()));
    $(".add", this.view).addEventListener("click", () => this.edit("insert", this.lines.length, ""));
    $("#copies").append(this.view);
    copies.push(this);
    this.open();
  }

  /** Catch up with the topic, from the last edit that this copy holds, and keep up. */
  open() {
    this.push = client(this.name, "doc.*", { topics: { [TOPIC]: this.edits.at(-1) ?? "0-0" } });
    this.push.on("notification", (message) => {
      if (message.ephemeral) this.cursors.set(message.from, message.data);
      else this.apply(message);
      this.show();
    });
    showState(this.push, $(".state", this.view));
  }

  /** Apply one edit: the same edits in the same order make the same lines. */
  apply({ id, event, data: { line, text } }) {
    if (event === "insert") this.lines.splice(line, 0, text);
    else if (line < this.lines.length) this.lines[line] = text;
    this.edits.push(id);
  }

  /** Propose an edit. Without a connection it waits in the client. */
  edit(event, line, text) {
    return this.push.publish(TOPIC, { line, text }, { event });
  }

  /** Show the others where the cursor is. */
  point(line) {
    if (this.push.state.status === "connected") this.push.publish(TOPIC, line, { ephemeral: true });
  }

  show() {
    const list = $(".lines", this.view);
    while (list.children.length > this.lines.length) list.lastChild.remove();
    for (const [line, text] of this.lines.entries()) {
      const row = list.children[line] ?? list.appendChild(this.row(line));
      const input = $("input", row);
      // What is being typed is not overwritten; what it was changed to is proposed with Enter.
      if (document.activeElement !== input || input.value === input.dataset.text) input.value = text;
      input.dataset.text = text;
      const here = [...this.cursors].filter(([who, at]) => who !== this.name && at === line);
      $(".cursor", row).textContent = here.map(([who]) => `▲ ${title(who)}`).join(" ");
    }
    $(".edits", this.view).textContent = `${this.edits.length} edits`;
    const texts = new Set(copies.map((copy) => copy.lines.join("\n")));
    $("#same").textContent = texts.size === 1 ? "All copies are the same." : "";
  }

  row(line) {
    const input = el("input", { type: "text", maxLength: 200, ariaLabel: `${title(this.name)}, line ${line + 1}` });
    const propose = () => input.value !== input.dataset.text && this.edit("replace", line, input.value);
    input.addEventListener("change", propose);
    input.addEventListener("focus", () => this.point(line));
    const number = el("span", { className: "soft" }, `${line + 1}`);
    return el("li", {}, number, input, el("span", { className: "cursor" }));
  }
}

const [anna, ben] = ["anna", "ben"].map((name) => new Copy(name));

const { last } = await anna.push.subscribe(TOPIC);
if (last === "0-0") {
  for (const [line, text] of ["Shopping", "- milk", "- bread"].entries()) await anna.edit("insert", line, text);
}

$("#both").addEventListener("click", () => {
  const at = new Date().toLocaleTimeString();
  anna.edit("replace", 1, `- oat milk (Anna, ${at})`);
  ben.edit("replace", 1, `- two litres of milk (Ben, ${at})`);
});

$("#carla").addEventListener("click", (event) => {
  event.target.disabled = true;
  new Copy("carla");
});
