// Chat rooms: messages, who is typing, who has read what, and who is here.
//
// The same topic and the same messages as examples/chat.py: the two can talk to each other.
import { $, client, el, here, showState, title } from "./shared.js";

const TOPIC = "chat.lobby";

class Member {
  people = new Set();
  texts = new Map(); // what was said, by id
  told = ""; // the newest that the others know to be read
  newest = "";

  constructor(name) {
    this.name = name;
    this.view = $("#member").content.cloneNode(true).firstElementChild;
    this.view.classList.add(name);
    $("h2", this.view).textContent = title(name);
    $(".list", this.view).ariaLabel = `What ${title(name)} sees`;
    $("#users").append(this.view);

    const input = $("input", this.view);
    input.ariaLabel = `${title(name)} says`;
    input.addEventListener("input", () => this.typing());
    $("form", this.view).addEventListener("submit", (event) => {
      event.preventDefault();
      if (input.value.trim()) this.say(input.value.trim());
      input.value = "";
    });

    // Everything that is kept of the room, and then what is said, without a seam.
    this.push = client(name, "chat.*", { topics: { [TOPIC]: "0-0" } });
    this.push.on("notification", (message) => this.happened(message));
    this.push.on("presence", (message) => this.comeAndGo(message));
    this.push.on("state", ({ status }) => status === "connected" && this.join());
    showState(this.push, $(".state", this.view));
    setInterval(() => this.tellWhatIsRead(), 300);
  }

  async join() {
    await this.push.subscribe(TOPIC); // who comes and goes is told to those who listen
    const { users } = await this.push.presence(TOPIC);
    this.people = new Set(users);
    this.showPeople();
  }

  say(text) {
    this.typed = 0; // what is typed next is news again
    return this.push.publish(TOPIC, text, { event: "said" });
  }

  typing() {
    if (Date.now() - (this.typed ?? 0) < 1000) return;
    this.typed = Date.now();
    this.push.publish(TOPIC, {}, { event: "typing", ephemeral: true });
  }

  comeAndGo({ joined, left }) {
    for (const name of joined) {
      if (!this.people.has(name)) this.line(`${title(name)} joined`, "aside");
      this.people.add(name);
    }
    for (const name of left) {
      if (this.people.delete(name)) this.line(`${title(name)} left`, "aside");
    }
    this.showPeople();
  }

  happened({ id, event, from = "backend", data }) {
    if (event === "said") {
      // One's own words are shown when they come back: all see them in the same order.
      this.texts.set(id, this.line(`${title(from)}: ${data}`));
      if (from !== this.name) this.newest = id;
      if (from === this.typist) this.isTyping(null);
    } else if (from === this.name) {
      return; // one knows what one types and reads
    } else if (event === "typing") {
      this.isTyping(from);
    } else if (event === "read") {
      const row = this.texts.get(data);
      for (const old of this.view.querySelectorAll(`small[data-by="${CSS.escape(from)}"]`)) old.remove();
      const mark = el("small", {}, `read by ${title(from)}`);
      mark.dataset.by = from;
      row?.append(mark);
    }
  }

  /** Shows who is typing, for a moment; null for nobody. */
  isTyping(who) {
    this.typist = who;
    $(".doing", this.view).textContent = who ? `${title(who)} is typing …` : "\u00a0";
    clearTimeout(this.quiet);
    if (who) this.quiet = setTimeout(() => this.isTyping(null), 1500);
  }

  /** Now and then, and only the newest: everything before it is read too. */
  tellWhatIsRead() {
    if (this.newest === this.told) return;
    this.told = this.newest;
    this.push.publish(TOPIC, this.told, { event: "read", collapse_key: `read:${this.name}` });
  }

  showPeople() {
    $(".here", this.view).textContent = here(this.people, this.name);
  }

  line(text, className = "new") {
    const list = $(".list", this.view);
    const row = el("li", { className }, el("span", {}, text));
    list.append(row);
    if (list.children.length > 200) list.firstChild.remove();
    list.scrollTop = list.scrollHeight;
    return row;
  }
}

for (const name of ["anna", "ben"]) new Member(name);
