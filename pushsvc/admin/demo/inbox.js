// One user with two devices, and a bell on each.
import "/inbox.js";
import { $, Backend, client, showState } from "./shared.js";

const USER = "anna";

class Device {
  constructor(name) {
    this.name = name;
    const card = $("#device").content.cloneNode(true).firstElementChild;
    $("h2", card).textContent = name;
    this.bell = $("pushsvc-inbox", card);
    this.bell.addEventListener("pushsvc-open", ({ detail }) => {
      $(".opened", card).textContent = `Opened here: ${detail.item.data?.title ?? detail.item.id}`;
    });
    this.stateNote = $(".state", card);
    const online = $("input", card);
    online.ariaLabel = `${name} is online`;
    online.addEventListener("change", () => (online.checked ? this.join() : this.push.close()));
    $("#devices").append(card);
    this.join();
  }

  join() {
    this.push = client(USER, undefined, { device: this.name.toLowerCase() });
    this.push.on("notification", () => {}); // shown by the bell, and so handled
    showState(this.push, this.stateNote);
    this.bell.push = this.push;
  }
}

for (const name of ["Phone", "Laptop"]) new Device(name);

const backend = new Backend();
$("#form").addEventListener("submit", (event) => {
  event.preventDefault();
  const data = { title: $("#text").value || "…", body: `Sent at ${new Date().toLocaleTimeString()}` };
  backend.publish({ to: { user: USER }, event: "order.shipped", data });
});
