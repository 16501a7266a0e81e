/** The page of one painting: picture, progress, costs, what can be changed, and what can be taken away. */

import * as api from "./api.js";
import { Adjust } from "./adjust.js";
import { Viewer } from "./canvas/viewer.js";
import { Curves } from "./curves.js";
import { announce, clone, make } from "./dom.js";
import { Downloads } from "./downloads.js";
import { Live } from "./live.js";
import { Progress } from "./progress.js";
import { viewTools } from "./tools.js";
import { STATES, settingName, settingValue } from "./words.js";

export class Painting {
  /** Ends with `close()`; `connection` is told when the run's socket is lost and open again. */
  constructor(about, id, connection) {
    this.connection = connection;
    [this.root, this.parts] = clone("t-run");
    this.id = id;
    this.run = null;
    this.begun = null;
    this.shownPicture = false;
    this.viewer = new Viewer();
    this.progress = new Progress();
    this.curves = new Curves();
    this.adjust = new Adjust(about, id);
    this.downloads = new Downloads(id);
    const [actions, actionParts] = clone("t-actions");
    this.actions = actionParts;
    this.parts.viewer.append(this.viewer.root);
    this.parts.tools.append(viewTools(this.viewer));
    this.parts.progress.append(this.progress.root);
    this.parts.curves.append(this.curves.root);
    this.parts.adjust.append(this.adjust.root);
    this.parts.downloads.append(this.downloads.root);
    this.parts.actions.append(actions);
    this.listen();
    this.viewer.note({ kind: "waiting", title: "Opening …" });
    this.live = new Live(id, {
      event: (event) => this.receive(event),
      frame: (bitmap, event) => this.frame(bitmap, event),
      open: () => { connection.open("run"); this.load(); },
      lost: () => {
        connection.lost("run");
        if (!this.run) this.load(); // what is kept can be seen without the socket
      },
    });
  }

  listen() {
    const { actions, parts } = this;
    actions.pause.onclick = () => this.ask({ pause: this.run?.state !== "paused" });
    actions.stop.onclick = () => this.ask({ stop: true });
    actions.more.onclick = () => this.ask({ more_scale: true });
    actions.resume.onclick = () => this.resume();
    actions.like.href = `#/new/${this.id}`;
    parts.title.addEventListener("change", () => this.rename(parts.title.value.trim()));
    parts.title.addEventListener("keydown", (event) => {
      if (event.key === "Enter") parts.title.blur();
      if (event.key === "Escape") {
        parts.title.value = this.run?.name ?? "";
        parts.title.blur();
      }
    });
  }

  /** All that is known, at the start and after each time the server was gone. */
  async load() {
    let run;
    try {
      run = await api.run(this.id);
    } catch (error) {
      if (error.status === 404) this.missing();
      else if (error.status) this.viewer.note({ kind: "failed", title: "It can't be shown", text: error.message });
      return;
    }
    if (this.closed) return;
    this.curves.reset();
    this.parts.changes.replaceChildren();
    if (run.begun) this.begin(run.begun);
    for (const event of run.history ?? []) this.curves.add(event);
    for (const change of run.changes ?? []) this.listChange(change);
    if (run.changes?.length) this.adjust.changed(Object.assign({}, ...run.changes.map(({ changes }) => changes)));
    if (run.iterations) this.progress.show({ ...run, seconds: NaN });
    this.update(run);
    if (!this.viewer.before) {
      const content = await api.bitmapFrom(api.fileOf(this.id, "content"));
      if (content && !this.closed) this.viewer.setBefore(content);
    }
  }

  /** There is no such run, and no use in asking for it again. */
  missing() {
    this.live.close();
    this.connection.open("run");
    this.parts.inspector.hidden = true;
    this.viewer.note({ kind: "failed", title: "There is no such painting", text: "It may have been deleted." });
  }

  receive(event) {
    const handlers = {
      begun: () => this.begin(event),
      progress: () => {
        for (const costs of event.costs) this.curves.add(costs);
        this.progress.show(event);
      },
      changed: () => {
        if (event.scales) this.rescale(event.scales);
        this.adjust.changed(event.changes);
        this.listChange(event);
      },
      refused: () => this.adjust.refused(event.changes, event.why),
      behind: () => this.load(),
      removed: () => { if (event.id === this.id) location.hash = "#/new"; },
      paused: () => this.update({ ...this.run, state: "paused" }),
      resumed: () => this.update({ ...this.run, state: "running" }),
      state: () => this.update(event.run),
    };
    handlers[event.event]?.();
  }

  begin(begun) {
    this.begun = begun;
    this.rescale(begun.scales);
    this.adjust.begin(begun.taken ?? {});
    if (this.run) this.update(this.run);
  }

  rescale(scales) {
    this.viewer.setSize(scales.at(-1).size);
    this.progress.begin(scales);
    this.curves.begin(scales);
  }

  frame(bitmap, event) {
    this.viewer.show(bitmap);
    this.viewer.canvas.setAttribute("aria-label", `${this.run?.name ?? "The painting"}, iteration ${event?.iteration ?? 0}`);
  }

  update(run) {
    if (!run || run.id !== this.id) return;
    const before = this.run?.state;
    this.run = { ...this.run, ...run };
    const { state } = run;
    this.root.classList.remove("opening");
    if (going(state)) this.shownPicture = false; // it will be another one
    const isGoing = going(state);
    if (document.activeElement !== this.parts.title) this.parts.title.value = run.name;
    this.parts.state.textContent = STATES[state] ?? state;
    this.parts.state.dataset.state = state;
    this.actions.pause.hidden = this.actions.stop.hidden = this.actions.more.hidden = !isGoing;
    this.actions["pause-label"].textContent = state === "paused" ? "Go on" : "Pause";
    this.actions["pause-icon"].setAttribute("href", state === "paused" ? "#i-play" : "#i-pause");
    this.actions.like.hidden = isGoing || state === "queued";
    this.actions.resume.hidden = state !== "stopped" && state !== "failed";
    this.adjust.setEnabled(isGoing && this.begun !== null);
    this.parts["adjust-panel"].hidden = !isGoing;
    this.parts["costs-panel"].hidden = !isGoing && !this.curves.at.length;
    this.parts.progress.hidden = state === "queued" && !this.begun;
    this.parts["changes-panel"].hidden = this.parts.changes.children.length === 0;
    this.downloads.show(run.has ?? {});
    this.showNote(run);
    if (state === "paused") this.progress.halted("paused");
    if (state === "done") this.progress.finished(this.run.ended - this.run.began);
    if (state === "stopped" || state === "failed") this.progress.halted(state);
    if (before && before !== state) announce(`${run.name}: ${STATES[state] ?? state}`);
    this.showKept(run);
  }

  showNote(run) {
    const seen = this.viewer.newest !== null;
    const again = { action: "Try again", onAction: () => this.resume() };
    if (run.state === "failed") this.viewer.note({ kind: "failed", title: "It could not go on", text: run.error ?? "", ...again });
    else if (seen) this.viewer.note(null);
    else if (run.state === "queued") this.viewer.note({ kind: "waiting", title: "Waiting for its turn", text: "It begins when the painting before it is done." });
    else if (run.state === "running") this.viewer.note({ kind: "waiting", title: this.begun ? "The first strokes …" : "Looking at the pictures …" });
    else if (!run.has?.frame && !run.has?.picture) this.viewer.note({ kind: "plain", title: "Nothing was painted yet" });
  }

  /** The finished picture, all of its pixels; else the last frame that was kept. */
  async showKept(run) {
    const finished = ["done", "stopped"].includes(run.state) && run.has?.picture;
    if (this.shownPicture === finished && this.viewer.newest) return;
    if (!finished && this.viewer.newest) return;
    if (!finished && !run.has?.frame) return;
    this.shownPicture = finished;
    const bitmap = await api.bitmapFrom(finished ? api.pictureOf(this.id, "png") : api.fileOf(this.id, "frame"));
    if (!bitmap || this.closed) return bitmap?.close();
    if (finished) this.viewer.setSize([bitmap.width, bitmap.height]);
    this.viewer.show(bitmap);
    return this.showNote(this.run);
  }

  listChange({ iteration, changes }) {
    const lines = Object.entries(changes).map(([name, value]) => `${settingName(name)} ${settingValue(value)}`);
    this.parts.changes.append(make("li", {}, make("span", { class: "at" }, iteration.toLocaleString("en-US")), make("span", {}, lines.join("; "))));
    this.parts["changes-panel"].hidden = false;
    this.curves.mark(iteration);
  }

  async ask(wanted) {
    this.actions.error.textContent = "";
    try {
      await api.patch(this.id, wanted);
    } catch (error) {
      this.actions.error.textContent = error.message;
    }
  }

  async resume() {
    this.actions.error.textContent = "";
    try {
      await api.resume(this.id);
      this.shownPicture = false;
    } catch (error) {
      this.actions.error.textContent = error.message;
    }
  }

  async rename(name) {
    if (name && name !== this.run?.name) await this.ask({ name });
    else this.parts.title.value = this.run?.name ?? "";
  }

  close() {
    this.closed = true;
    this.live.close();
    this.viewer.close();
    this.curves.close();
  }
}

/** Whether a run of this state is being painted. */
function going(state) {
  return state === "running" || state === "paused";
}
