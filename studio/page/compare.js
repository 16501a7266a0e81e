/** Several paintings side by side, seen through one camera: what is zoomed in one is zoomed in all. */

import * as api from "./api.js";
import { Camera } from "./canvas/camera.js";
import { Viewer } from "./canvas/viewer.js";
import { make } from "./dom.js";
import { Live } from "./live.js";
import { viewTools } from "./tools.js";
import { stateLine } from "./words.js";

export class Comparison {
  constructor(ids, connection) {
    this.camera = new Camera();
    this.cells = ids.map((id) => new Cell(id, this.camera, connection));
    const tools = make("div", { class: "view-tools", role: "toolbar", "aria-label": "View" }, viewTools(this.cells[0].viewer));
    tools.querySelector("[data-part=split]").onclick = (event) => this.compareAll(event.currentTarget);
    this.root = make("section", { class: "compare", "aria-labelledby": "compare-title" },
      make("header", { class: "compare-head" }, make("h1", { id: "compare-title" }, "Side by side")),
      make("div", { class: "compare-grid" }, ...this.cells.map(({ root }) => root)),
      tools);
  }

  compareAll(button) {
    const on = button.getAttribute("aria-pressed") !== "true";
    button.setAttribute("aria-pressed", String(on));
    for (const { viewer } of this.cells) viewer.compareAt(on ? 0.5 : null);
  }

  close() {
    for (const cell of this.cells) cell.close();
  }
}

class Cell {
  constructor(id, camera, connection) {
    this.id = id;
    this.viewer = new Viewer(camera);
    this.name = make("span");
    this.state = make("span", { class: "run-state" });
    const frame = make("div", { class: "viewer" }, this.viewer.root);
    this.root = make("div", { class: "compare-cell" }, frame, make("a", { href: `#/run/${id}` }, this.name, this.state));
    this.viewer.note({ kind: "waiting", title: "Opening …" });
    this.live = new Live(id, {
      event: (event) => this.receive(event),
      frame: (bitmap) => this.viewer.show(bitmap),
      open: () => { connection.open(id); this.load(); },
      lost: () => connection.lost(id),
    });
  }

  receive(event) {
    if (event.event === "state") this.update(event.run);
    if (event.event === "progress") this.state.textContent = stateLine({ ...this.run, ...event, state: this.run?.state ?? "running" });
  }

  update(run) {
    this.run = run;
    this.name.textContent = run.name;
    this.state.textContent = stateLine(run);
  }

  async load() {
    const run = await api.run(this.id).catch((error) => {
      if (error.status) this.viewer.note({ kind: "failed", title: error.message });
      return null;
    });
    if (!run || this.closed) return;
    this.update(run);
    if (run.begun) this.viewer.setSize(run.begun.size);
    const kept = run.has?.picture ? api.pictureOf(this.id, "png") : api.fileOf(this.id, "frame");
    const [bitmap, content] = await Promise.all([api.bitmapFrom(kept), api.bitmapFrom(api.fileOf(this.id, "content"))]);
    if (this.closed) return;
    if (bitmap) this.viewer.show(bitmap);
    else this.viewer.note({ kind: "waiting", title: "Nothing to see yet" });
    if (content) this.viewer.setBefore(content);
  }

  close() {
    this.closed = true;
    this.live.close();
    this.viewer.close();
  }
}
