/** The list of paintings at the left: thumbnails, states, order, and what can be done with each. */

import * as api from "./api.js";
import { announce, byId, clone, confirmed, make } from "./dom.js";
import { reorderable } from "./reorder.js";
import { stateLine } from "./words.js";

const MOST_BESIDE = 4;
const THUMBNAIL_EVERY = 4000; // milliseconds, while it paints

export class RunList {
  constructor() {
    this.root = byId("runs");
    this.items = new Map();
    this.runs = [];
    this.current = null;
    this.order = reorderable(this.root, "[data-state=queued]", ".grip", (item, place) => this.move(item.dataset.id, place));
    byId("compare-chosen").onclick = () => { location.hash = `#/compare/${this.chosen().join(",")}`; };
  }

  /** The runs in their order; those that are shown already keep their elements, and so the focus. */
  update(runs) {
    if (this.order.isDragging()) return;
    this.runs = runs;
    const ids = new Set(runs.map((run) => run.id));
    for (const [id, item] of this.items) {
      if (ids.has(id)) continue;
      item.root.remove();
      this.items.delete(id);
    }
    const focused = document.activeElement;
    runs.forEach((run, index) => {
      const item = this.items.get(run.id) ?? this.create(run);
      this.show(item, run);
      if (this.root.children[index] !== item.root) this.root.insertBefore(item.root, this.root.children[index] ?? null);
    });
    if (focused !== document.activeElement && this.root.contains(focused)) focused.focus();
    byId("runs-empty").hidden = runs.length > 0;
    byId("runs-hint").hidden = this.queue().length < 2;
    this.showChosen();
  }

  /** One run's news, between two lists. */
  updateOne(run) {
    const index = this.runs.findIndex(({ id }) => id === run.id);
    if (index < 0) return;
    this.runs[index] = run;
    this.show(this.items.get(run.id), run);
  }

  create(run) {
    const [root, parts] = clone("t-run-item");
    const item = { root, parts, thumbnailAt: -Infinity, state: null };
    root.dataset.id = run.id;
    parts.link.href = `#/run/${run.id}`;
    parts.thumb.addEventListener("load", () => parts.thumb.classList.remove("missing"));
    parts.thumb.addEventListener("error", () => parts.thumb.classList.add("missing"));
    parts.menu.onclick = () => this.openMenu(item);
    parts.pick.addEventListener("change", () => this.showChosen());
    this.items.set(run.id, item);
    return item;
  }

  show(item, run) {
    const { root, parts } = item;
    root.dataset.state = run.state;
    root.classList.toggle("current", run.id === this.current);
    parts.link.setAttribute("aria-current", run.id === this.current ? "page" : "false");
    parts.name.textContent = run.name;
    parts.state.textContent = stateLine(run);
    parts.state.title = run.error ?? "";
    parts.pick.setAttribute("aria-label", `Choose ${run.name} for side by side`);
    parts.menu.setAttribute("aria-label", `What to do with ${run.name}`);
    const going = run.state === "running" || run.state === "paused";
    parts.meter.hidden = !going;
    if (going && run.iterations) parts.fill.style.width = `${(100 * run.iteration) / run.iterations}%`;
    if (item.state !== run.state || (run.state === "running" && performance.now() - item.thumbnailAt > THUMBNAIL_EVERY)) {
      item.thumbnailAt = performance.now();
      parts.thumb.src = `${api.fileOf(run.id, "thumbnail")}?at=${run.iteration ?? 0}-${run.state}`;
    }
    item.state = run.state;
  }

  setCurrent(id) {
    this.current = id;
    for (const run of this.runs) this.show(this.items.get(run.id), run);
  }

  /** The ids of those that wait, which alone have an order that can be changed. */
  queue() {
    return this.runs.filter(({ state }) => state === "queued").map(({ id }) => id);
  }

  chosen() {
    return this.runs.map(({ id }) => id).filter((id) => this.items.get(id).parts.pick.checked);
  }

  showChosen() {
    const chosen = this.chosen();
    byId("compare-chosen").hidden = chosen.length < 2;
    this.root.classList.toggle("choosing", chosen.length > 0);
    for (const { parts } of this.items.values()) parts.pick.disabled = !parts.pick.checked && chosen.length >= MOST_BESIDE;
  }

  async move(id, position) {
    try {
      await api.patch(id, { position });
      announce(`Moved to place ${position + 1} of ${this.queue().length} that wait`);
    } catch (error) {
      announce(error.message);
      this.update(await api.runs().catch(() => this.runs));
    }
  }

  openMenu(item) {
    const menu = byId("run-menu");
    const run = this.runs.find(({ id }) => id === item.root.dataset.id);
    const [queue, place] = [this.queue(), this.queue().indexOf(run.id)];
    const entries = [
      ["Open", () => { location.hash = `#/run/${run.id}`; }],
      ["Rename", () => this.rename(run)],
      ["Same settings, new content", () => { location.hash = `#/new/${run.id}`; }],
      null,
      place > 0 && ["Move up", () => this.move(run.id, place - 1)],
      place >= 0 && place < queue.length - 1 && ["Move down", () => this.move(run.id, place + 1)],
      place >= 0 && queue.length > 1 && null,
      ["Delete …", () => this.remove(run), "danger"],
    ].filter((entry) => entry !== false);
    menu.replaceChildren(...entries.map((entry) => entry === null ? make("hr") : this.entry(menu, ...entry)));
    menu.showPopover();
    const box = item.parts.menu.getBoundingClientRect();
    menu.style.left = `${Math.max(8, Math.min(box.left, innerWidth - menu.offsetWidth - 8))}px`;
    menu.style.top = `${Math.max(8, Math.min(box.bottom + 4, innerHeight - menu.offsetHeight - 8))}px`;
    menu.onkeydown = (event) => {
      const buttons = [...menu.querySelectorAll("button")];
      const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
      if (event.key === "Tab") menu.hidePopover();
      if (!step) return;
      event.preventDefault();
      buttons[(buttons.indexOf(document.activeElement) + step + buttons.length) % buttons.length].focus();
    };
    menu.querySelector("button").focus();
  }

  entry(menu, label, action, kind) {
    const button = make("button", { type: "button", role: "menuitem", class: kind ?? false }, label);
    button.onclick = () => {
      menu.hidePopover();
      action();
    };
    return button;
  }

  rename(run) {
    location.hash = `#/run/${run.id}`;
    setTimeout(() => document.querySelector(".title-input")?.select(), 250);
  }

  async remove(run) {
    const going = run.state === "running" || run.state === "paused" ? "It is being painted now. " : "";
    if (!(await confirmed(`Delete “${run.name}”?`, `${going}The picture, its recipe and all else in its folder are removed for good.`))) return;
    try {
      await api.remove(run.id);
      announce(`${run.name} deleted`);
      if (location.hash.includes(run.id)) location.hash = "#/new";
    } catch (error) {
      announce(error.message);
    }
  }
}
