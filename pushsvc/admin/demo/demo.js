// The demo: a backend, two users with a client each, and a node that can be killed.
import { $, Backend, client, el, here, node, nodes, pause, post, showState, title, token } from "./shared.js";

const ROOM = "demo.room"; // to see who is here
const LATE = 3000; // ms after which what did not come is missing
const opened = Date.now() - 1000;
const backend = new Backend();

// --- what was sent, and what came ----------------------------------------------------------------

/** Deliveries that are owed, by `user/id`. */
const owed = new Map();

class Delivery {
  constructor(user, text) {
    Object.assign(this, { user, text, begin: performance.now(), received: 0 });
    this.note = el("small", { textContent: "sending…" });
    this.row = el("li", { className: "new" }, el("span", {}, `${title(user)}: ${text}`), this.note);
    add($("#sent"), this.row);
  }

  accepted({ id, attempts }) {
    this.id = id;
    this.acceptedAt = performance.now();
    owed.set(`${this.user}/${id}`, this);
    const tries = attempts > 1 ? ` after ${attempts} attempts` : "";
    this.show("✓", `accepted${tries}`);
    people[this.user].early(id);
    count();
  }

  acknowledged(ms) {
    this.acked = true;
    this.show("✓✓", `acknowledged after ${since(ms)}`);
    if (!people[this.user].away) done("send");
  }

  show(ticks, text) {
    this.note.replaceChildren(el("span", { className: "tick" }, ticks), ` ${text}`);
  }
}

/** Send a text to a user; resolves when a node has accepted it. */
async function send(user, text) {
  const delivery = new Delivery(user, text);
  const note = { to: { user }, event: "demo", data: { text } };
  delivery.accepted(await backend.publish(note));
}

function count() {
  const all = [...owed.values()];
  const open = all.filter((each) => !each.received);
  const now = performance.now();
  const missing = open.filter(({ user, acceptedAt }) => {
    const up = people[user].upSince;
    return up !== null && now - Math.max(up, acceptedAt) > LATE;
  });
  const shown = {
    sent: all.length,
    received: all.length - open.length,
    waiting: open.length - missing.length,
    missing: missing.length,
    twice: all.filter((each) => each.received > 1).length,
    disorder: Object.values(people).reduce((sum, each) => sum + each.disorder, 0),
  };
  for (const [name, value] of Object.entries(shown)) {
    $(`#count-${name}`).textContent = value;
    if (["missing", "twice", "disorder"].includes(name)) {
      $(`#count-${name}`).parentElement.className = value ? "wrong" : "zero";
    }
  }
  return shown;
}

// --- a user --------------------------------------------------------------------------------------

class Person {
  away = false;
  upSince = null;
  disorder = 0;
  #last = [0, 0];
  #unclaimed = new Set(); // ids that came before the answer to their publish
  #here = new Set();
  #asking = 0;

  constructor(user) {
    this.user = user;
    const card = $("#user").content.cloneNode(true);
    this.list = $(".list", card);
    this.hereNote = $(".here", card);
    this.stateNote = $(".state", card);
    $(".user", card).classList.add(user);
    $("h2", card).textContent = title(user);
    this.list.ariaLabel = `What ${title(user)} received`;
    const online = $("input", card);
    online.ariaLabel = `${title(user)} is online`;
    online.addEventListener("change", () => (online.checked ? this.join() : this.leave()));
    $("#users").append(card);
  }

  join() {
    this.away = false;
    this.push = client(this.user, ROOM, { topics: [ROOM] });
    showState(this.push, this.stateNote);
    this.push.on("state", (state) => this.changed(state));
    this.push.on("notification", (notification) => this.receive(notification));
    this.push.on("presence", ({ joined, left }) => {
      for (const each of joined) this.#here.add(each);
      for (const each of left) this.#here.delete(each);
      this.showHere();
    });
  }

  leave() {
    this.away = true;
    this.upSince = null;
    this.push.close();
    this.hereNote.textContent = "Away.";
  }

  async changed({ status }) {
    this.upSince = status === "connected" ? performance.now() : null;
    if (status !== "connected") return;
    await this.push.subscribe(ROOM); // who comes and goes is told to those who listen
    const { users } = await this.push.presence(ROOM).catch(() => ({ users: [] }));
    this.#here = new Set(users);
    this.showHere();
  }

  showHere() {
    if (this.away) return;
    this.hereNote.textContent = here(this.#here, this.user);
    if (this.user === "ben" && people.anna?.away && !this.#here.has("anna")) done("presence");
  }

  receive({ id, time, data, attempt }) {
    if (!id) return;
    const place = id.split("-").map(Number);
    if (place[0] < this.#last[0] || (place[0] === this.#last[0] && place[1] <= this.#last[1])) {
      this.disorder += 1;
    } else {
      this.#last = place;
    }
    if (Date.parse(time) < opened) return; // of an earlier visit
    const text = data?.text ?? JSON.stringify(data);
    const age = Date.now() - Date.parse(time);
    const note = `after ${since(age)}${attempt > 1 ? `, attempt ${attempt}` : ""}`;
    add(this.list, el("li", { className: "new" }, el("span", {}, text), el("small", {}, note)));
    this.#unclaimed.add(id);
    if (owed.has(`${this.user}/${id}`)) this.early(id);
    else setTimeout(() => this.#unclaimed.has(id) && done("curl"), 2000); // none of ours
    this.askAcks();
  }

  /** Settle what came, with what was sent, whichever was known first. */
  early(id) {
    if (!this.#unclaimed.delete(id)) return;
    owed.get(`${this.user}/${id}`).received += 1;
    count();
  }

  /** Ask the node, as a backend may, what it knows to be acknowledged. */
  askAcks() {
    clearTimeout(this.#asking);
    this.#asking = setTimeout(async () => {
      const path = `/v1/user/notifications?limit=100&user=${encodeURIComponent(this.user)}`;
      const answer = await backend.ask(path);
      const found = answer?.ok ? (await answer.json()).notifications : [];
      for (const { id, time, acked } of found) {
        const delivery = owed.get(`${this.user}/${id}`);
        const at = acked.map((each) => each.time && Date.parse(each.time)).filter(Boolean);
        if (delivery && !delivery.acked && at.length) {
          delivery.acknowledged(Math.min(...at) - Date.parse(time));
        }
      }
      const open = [...owed.values()].some((each) => each.user === this.user && each.received && !each.acked);
      if (open && !this.away) this.askAcks();
    }, 100);
  }
}

const people = {};
for (const user of ["anna", "ben"]) people[user] = new Person(user);
for (const person of Object.values(people)) person.join();

// --- the backend's panel -------------------------------------------------------------------------

const to = () => {
  const value = $("input[name=to]:checked").value;
  return value === "both" ? Object.keys(people) : [value];
};

$("#form").addEventListener("submit", (event) => {
  event.preventDefault();
  for (const user of to()) send(user, $("#text").value || "…");
});

$("#three").addEventListener("click", async () => {
  const users = to();
  const sent = [1, 2, 3].flatMap((i) => users.map((user) => send(user, `${$("#text").value} (${i} of 3)`)));
  await Promise.all(sent);
});

async function showCurl() {
  const users = to();
  const target = users.length > 1 ? { users } : { user: users[0] };
  $("#curl").textContent = await backend.curl({ to: target, data: { text: $("#text").value } });
}
$("#form").addEventListener("input", showCurl);
showCurl();
$("#copy").addEventListener("click", async () => {
  await navigator.clipboard.writeText($("#curl").textContent);
  $("#copy").textContent = "Copied";
  setTimeout(() => ($("#copy").textContent = "Copy"), 1500);
});

// --- the node ------------------------------------------------------------------------------------

let killing = false;
let killedAt = 0;

async function showNode() {
  const [found] = await nodes().catch(() => []);
  const ready = Boolean(found?.ready);
  $("#node-state").dataset.status = ready ? "connected" : "waiting";
  const dead = killing ? `dead for ${((performance.now() - killedAt) / 1000).toFixed(1)} s` : "starting";
  $("#node-state").textContent = ready ? "serving" : dead;
  $("#node-id").textContent = ready ? `${found.node}, process ${found.pid}` : "";
  $("#kill").disabled = !ready || killing;
}

$("#kill").addEventListener("click", () => {
  killing = true;
  $("#kill").disabled = true;
  kill()
    .catch((error) => ($("#story").textContent = error.message))
    .finally(() => {
      killing = false;
      showNode();
    });
});

async function kill() {
  const story = $("#story");
  story.className = "told";
  // The one that Anna is on, should there be several.
  const alive = (await nodes()).filter((each) => each.ready);
  const nodeOf = ({ push }) => push.state.connection?.split(".")[0];
  const victim = alive.find((each) => each.node === nodeOf(people.anna)) ?? alive[0];
  const hit = Object.values(people).filter((each) => !each.away && nodeOf(each) === victim?.node);
  const begin = (killedAt = performance.now());
  const { node: dead, pid } = await post("/dev/kill", { node: victim?.node });
  story.textContent = `Killed process ${pid}. The backend goes on sending, with an Idempotency-Key each …`;
  showNode();

  // The backend's side: what fails is sent again, with the same key.
  let served = null;
  const sending = [];
  for (let i = 1; i <= 5; i += 1) {
    for (const user of Object.keys(people)) {
      sending.push(send(user, `Sent after the kill (${i} of 5)`).then(() => (served ??= performance.now())));
    }
    await pause(200);
  }
  await Promise.all(sending);
  story.textContent = `The next node answered ${since(served - begin)} after the kill. Waiting for Anna and Ben …`;

  // The users' side: each comes back by itself.
  const back = () => hit.every((each) => each.away || each.upSince > begin);
  const arrived = () => Object.values(people).every((each) => each.away || settled(each.user));
  while (!(back() && arrived()) && performance.now() - begin < 60_000) await pause(50);
  const returns = hit
    .filter((each) => each.upSince > begin)
    .map((each) => `, ${title(each.user)} was back after ${since(each.upSince - begin)}`);
  const { missing, twice, waiting } = count();
  story.textContent =
    `Node ${dead} died. Another one answered ${since(served - begin)} later${returns.join("")}. ` +
    `Of ${sending.length} sent meanwhile, ${missing || "none"} ${missing === 1 ? "is" : "are"} missing, ` +
    `${twice || "none"} came twice${waiting ? `, ${waiting} wait for who is offline` : ""}.`;
  if (hit.length && !missing && !twice) done("kill");
}

const settled = (user) => [...owed.values()].every((each) => each.user !== user || each.received);

// --- the rest ------------------------------------------------------------------------------------

function add(list, row) {
  list.append(row);
  while (list.children.length > 200) list.firstChild.remove();
  list.scrollTop = list.scrollHeight;
}

function since(ms) {
  return ms < 995 ? `${Math.max(1, Math.round(ms))} ms` : `${(ms / 1000).toFixed(1)} s`;
}

function done(step) {
  const item = $(`#step-${step}`);
  if (item.className === "done") return;
  item.className = "done";
  item.firstElementChild.append(el("span", { className: "unseen" }, " Done."));
  for (const each of document.querySelectorAll(".steps .next")) each.classList.remove("next");
  $(".steps li:not(.done)")?.classList.add("next");
}
$(".steps li").classList.add("next");

/** The steps about someone who is away. */
function watchOffline() {
  const { anna } = people;
  const waiting = [...owed.values()].filter((each) => each.user === "anna" && !each.received).length;
  if (anna.away && waiting >= 3) {
    done("offline");
    anna.owedSome = true;
  }
  if (!anna.away && anna.owedSome && waiting === 0) done("return");
}

$("#docs").href = `${node}/docs`;

setInterval(() => {
  count();
  watchOffline();
}, 250);
setInterval(showNode, 300);
showNode();
