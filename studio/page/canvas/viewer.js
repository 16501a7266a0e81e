/** A picture on a canvas: the newest frame fades in over the one before; the content is seen left of a divider. */

import { clone } from "../dom.js";
import { Camera } from "./camera.js";
import { zoomAndPan } from "./gestures.js";

const FADE = matchMedia("(prefers-reduced-motion: reduce)").matches ? 0 : 280; // milliseconds
const MARGIN = 16;

export class Viewer {
  constructor(camera = new Camera()) {
    [this.root, this.parts] = clone("t-viewer");
    this.camera = camera;
    this.size = null; // of the picture as it is known, whatever the size of the frames
    this.newest = null;
    this.previous = null;
    this.arrived = 0;
    this.before = null;
    this.split = null; // 0..1 of the window, or null
    this.drawing = 0;
    this.canvas = this.parts.canvas;
    this.context = this.canvas.getContext("2d");
    this.redraw = () => this.draw();
    camera.addEventListener("change", this.redraw);
    this.watcher = new ResizeObserver(this.redraw);
    this.watcher.observe(this.root);
    zoomAndPan(this.canvas, () => this.seen());
    this.dragDivider();
  }

  /** What the camera needs to know; null while there is no picture. */
  seen() {
    return this.size && { camera: this.camera, size: this.size, view: this.view() };
  }

  /** The room for the picture; a margin is left around one that fits. */
  view() {
    return [Math.max(1, this.root.clientWidth - 2 * MARGIN), Math.max(1, this.root.clientHeight - 2 * MARGIN)];
  }

  percent() {
    return this.size ? Math.round(100 * devicePixelRatio * this.camera.placed(this.size, this.view()).scale) : 100;
  }

  setSize(size) {
    this.size = size;
    this.draw();
  }

  show(bitmap) {
    this.previous?.close();
    this.previous = this.newest;
    this.newest = bitmap;
    this.size ??= [bitmap.width, bitmap.height];
    this.arrived = performance.now();
    this.note(null);
    this.draw();
  }

  setBefore(bitmap) {
    this.before = bitmap;
    this.draw();
  }

  compareAt(split) {
    this.split = split;
    this.parts.divider.hidden = this.parts["before-label"].hidden = this.parts["after-label"].hidden = split === null;
    if (split !== null) {
      this.parts.divider.style.left = `${100 * split}%`;
      this.parts.divider.setAttribute("aria-valuenow", Math.round(100 * split));
    }
    this.draw();
  }

  /** A line in place of a picture: {kind: "waiting" | "failed" | "plain", title, text, action, onAction}; null takes it away. */
  note(note) {
    const { note: box } = this.parts;
    box.hidden = note === null;
    if (note === null) return;
    box.dataset.kind = note.kind;
    this.parts["note-icon"].firstElementChild.setAttribute("href", note.kind === "failed" ? "#i-warning" : "#i-picture");
    this.parts["note-title"].textContent = note.title;
    this.parts["note-text"].textContent = note.text ?? "";
    this.parts["note-action"].hidden = !note.action;
    this.parts["note-action"].textContent = note.action ?? "";
    this.parts["note-action"].onclick = note.onAction ?? null;
  }

  dragDivider() {
    const { divider } = this.parts;
    divider.addEventListener("pointerdown", (event) => divider.setPointerCapture(event.pointerId));
    divider.addEventListener("pointermove", (event) => {
      if (!divider.hasPointerCapture(event.pointerId)) return;
      const box = this.root.getBoundingClientRect();
      this.compareAt(Math.max(0, Math.min(1, (event.clientX - box.left) / box.width)));
    });
    divider.addEventListener("keydown", (event) => {
      const step = { ArrowLeft: -0.02, ArrowDown: -0.02, ArrowRight: 0.02, ArrowUp: 0.02, PageDown: -0.2, PageUp: 0.2, Home: -1, End: 1 }[event.key];
      if (!step) return;
      event.preventDefault();
      this.compareAt(Math.max(0, Math.min(1, this.split + step)));
    });
  }

  draw() {
    if (this.drawing) return;
    this.drawing = requestAnimationFrame(() => {
      this.drawing = 0;
      this.paint();
    });
  }

  paint() {
    const { canvas, context, root } = this;
    const ratio = devicePixelRatio;
    const [width, height] = [Math.round(root.clientWidth * ratio), Math.round(root.clientHeight * ratio)];
    if (canvas.width !== width || canvas.height !== height) [canvas.width, canvas.height] = [width, height];
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.clearRect(0, 0, width, height);
    if (!this.size) return;
    canvas.style.touchAction = this.camera.zoom > 1 ? "none" : "pan-y"; // a finger on the whole picture scrolls the page
    const { scale, left, top } = this.camera.placed(this.size, this.view());
    const box = [left + MARGIN, top + MARGIN, this.size[0] * scale, this.size[1] * scale];
    context.imageSmoothingQuality = "high";
    context.imageSmoothingEnabled = this.camera.zoom <= 1 || scale * ratio < 4; // pixels are shown to who looks for them
    const share = FADE ? Math.min(1, (performance.now() - this.arrived) / FADE) : 1;
    if (this.previous && share < 1) context.drawImage(this.previous, ...box);
    if (this.newest) {
      context.globalAlpha = this.previous ? share : 1;
      context.drawImage(this.newest, ...box);
      context.globalAlpha = 1;
    }
    const shown = this.newest ? this.split : 1;
    if (this.before && shown !== null) {
      context.save();
      context.beginPath();
      context.rect(0, 0, root.clientWidth * shown, root.clientHeight);
      context.clip();
      context.globalAlpha = this.newest ? 1 : 0.35;
      context.drawImage(this.before, ...box);
      context.restore();
    }
    if (this.previous && share < 1) this.draw();
    root.dispatchEvent(new Event("painted"));
  }

  close() {
    this.watcher.disconnect();
    this.camera.removeEventListener("change", this.redraw);
    cancelAnimationFrame(this.drawing);
    for (const bitmap of [this.newest, this.previous, this.before]) bitmap?.close();
    this.newest = this.previous = this.before = null;
  }
}
