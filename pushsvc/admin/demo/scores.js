// Live scores: one publish, many screens, and how long it takes to reach them.
//
// Each goal is published once, to the topic of the match. The final whistle is a broadcast, which
// reaches everyone who is connected, whatever they subscribed to. A page can hold some screens only:
// examples/scores.py fills a stadium.
import { $, Backend, client, el, pause } from "./shared.js";

const TOPIC = "scores.final";
const SCREENS = 24;
const GOALS = 6;
const backend = new Backend("stadium");
const match = Math.random().toString(36).slice(2, 8); // what is of another one is not measured

class Screen {
  constructor(number) {
    this.row = el("li", {}, "…");
    $("#screens").append(this.row);
    // Devices of one user, of which a node allows 32 connections.
    this.push = client(`fan-${match}`, "scores.*", { device: `screen-${number}`, topics: [TOPIC] });
    this.push.on("notification", (message) => this.show(message));
    this.ready = new Promise((resolve) => {
      this.push.on("state", ({ status }) => status === "connected" && resolve());
    });
  }

  show({ event, data }) {
    if (event !== "goal" && event !== "final") return; // for another part of an app
    const ms = data.match === match ? performance.now() - begin : null;
    const took = ms === null ? "" : `${Math.round(ms)} ms`;
    this.row.replaceWith((this.row = el("li", { className: "new" }, data.score, el("br"), took)));
    if (ms !== null) heard.push(ms);
  }
}

let begin = 0; // when the newest score was published
let heard = []; // after how many ms each screen heard of it

/** Tell everyone, wait until all have heard of it, and say how long that took. */
async function tell(minute, event, score) {
  const note = { event, data: { minute, score, match } };
  heard = [];
  begin = performance.now();
  if (event === "goal") {
    // Replaces the score before: who subscribes later is sent the newest one.
    await backend.publish({ ...note, to: { topic: TOPIC }, collapse_key: "score" });
  } else {
    // Live only: nobody who connects later needs to be told.
    await backend.publish({ ...note, to: { broadcast: true }, ttl: 0 });
  }
  while (heard.length < SCREENS && performance.now() - begin < 10_000) await pause(10);
  heard.sort((a, b) => a - b);
  const middle = heard[Math.floor(heard.length / 2)] ?? 0;
  const took = `${heard.length} screens: half after ${Math.round(middle)} ms, the last after ${Math.round(heard.at(-1) ?? 0)} ms`;
  const row = el("li", { className: "new" }, `${minute}′ ${event === "goal" ? "Goal!" : "Final whistle,"} ${score}`, el("small", {}, took));
  $("#goals").append(row);
  $("#goals").scrollTop = $("#goals").scrollHeight;
  $("#score").textContent = score;
}

$("#kickoff").addEventListener("click", async () => {
  $("#kickoff").disabled = true;
  $("#goals").replaceChildren();
  let [home, away] = [0, 0];
  const minutes = Array.from({ length: GOALS }, () => 1 + Math.floor(Math.random() * 89));
  for (const minute of minutes.sort((a, b) => a - b)) {
    if (Math.random() < 0.5) home += 1;
    else away += 1;
    await tell(minute, "goal", `${home}:${away}`);
    await pause(1200);
  }
  await tell(90, "final", `${home}:${away}`);
  $("#kickoff").disabled = false;
});

const screens = Array.from({ length: SCREENS }, (_, number) => new Screen(number));
let up = 0;
await Promise.all(screens.map(({ ready }) => ready.then(() => ($("#ready").textContent = `${(up += 1)} of ${SCREENS} connected`))));
$("#ready").textContent = `${SCREENS} screens are connected.`;
$("#kickoff").disabled = false;
