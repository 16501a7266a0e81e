/** The dialog in which masks are painted: one picture, one or several masks over it, each in its own color. */

import { clone, fillRange, make } from "./dom.js";
import { Camera } from "./canvas/camera.js";
import { zoomAndPan } from "./canvas/gestures.js";
import { Mask } from "./canvas/mask.js";

const LONGEST = 1024; // pixels of a mask's long side; the run scales it to the picture
const STRENGTH = 0.62; // of a color over the picture
const MARGIN = 16;

/**
 * picture: ImageBitmap; layers: [{key, label, color: [r, g, b]}]; masks: Map of key -> Mask as painted before.
 * Resolves to the new Map (empty masks left out), or null where it was cancelled.
 */
export function paintMasks(title, picture, layers, masks) {
  return new Promise((resolve) => new Editor(title, picture, layers, masks, resolve));
}

class Editor {
  constructor(title, picture, layers, masks, resolve) {
    [this.root, this.parts] = clone("t-mask");
    this.picture = picture;
    const scale = Math.min(1, LONGEST / Math.max(picture.width, picture.height));
    this.size = [Math.max(1, Math.round(picture.width * scale)), Math.max(1, Math.round(picture.height * scale))];
    this.layers = layers.map((layer) => this.prepared(layer, masks.get(layer.key)));
    this.active = this.layers[0];
    this.camera = new Camera();
    this.context = this.parts.canvas.getContext("2d");
    this.cursor = [this.size[0] / 2, this.size[1] / 2];
    this.last = null;
    this.past = []; // the layers of the strokes, in their order
    this.parts.title.textContent = title;
    this.parts.canvas.setAttribute("aria-label", `${title}: arrows move the brush, space paints`);
    this.listLayers();
    this.listen(resolve);
    document.body.append(this.root);
    this.root.showModal();
    this.parts.canvas.focus();
    this.draw();
  }

  prepared(layer, mask) {
    const canvas = new OffscreenCanvas(...this.size);
    const prepared = { ...layer, mask: mask?.copy() ?? new Mask(...this.size), canvas, context: canvas.getContext("2d") };
    this.tint(prepared, { left: 0, top: 0, right: this.size[0], bottom: this.size[1] });
    return prepared;
  }

  listLayers() {
    for (const layer of this.layers) {
      const swatch = make("span", { class: "swatch" });
      swatch.style.background = `rgb(${layer.color})`;
      const choice = make("input", { type: "radio", name: "mask-layer", checked: layer === this.active });
      choice.addEventListener("change", () => this.choose(layer));
      this.parts.layers.append(make("label", { class: "mask-layer" }, choice, swatch, layer.label));
    }
  }

  choose(layer) {
    this.active = layer;
    this.draw();
  }

  listen(resolve) {
    const { parts, root } = this;
    const watcher = new ResizeObserver(() => this.draw());
    watcher.observe(parts.stage);
    this.camera.addEventListener("change", () => this.draw());
    zoomAndPan(parts.canvas, () => ({ camera: this.camera, size: this.size, view: this.view() }), { dragPans: false, keysPan: false });
    parts.canvas.addEventListener("pointerdown", (event) => this.down(event));
    parts.canvas.addEventListener("pointermove", (event) => this.move(event));
    for (const name of ["pointerup", "pointercancel"]) parts.canvas.addEventListener(name, (event) => this.up(event));
    parts.canvas.addEventListener("keydown", (event) => this.key(event));
    root.addEventListener("keydown", (event) => {
      if (event.key.toLowerCase() !== "z" || !(event.ctrlKey || event.metaKey)) return;
      event.preventDefault();
      this.undo();
    });
    for (const range of [parts.size, parts.softness]) {
      fillRange(range);
      range.addEventListener("input", () => { fillRange(range); this.draw(); });
    }
    parts.undo.onclick = () => this.undo();
    parts.invert.onclick = () => this.whole("invert");
    parts.clear.onclick = () => this.whole("clear");
    parts.cancel.onclick = () => root.close();
    parts.done.onclick = () => root.close("done");
    root.addEventListener("close", () => {
      watcher.disconnect();
      root.remove();
      const painted = this.layers.filter((layer) => !layer.mask.isEmpty()).map((layer) => [layer.key, layer.mask]);
      resolve(root.returnValue === "done" ? new Map(painted) : null);
    });
  }

  view() {
    return [Math.max(1, this.parts.stage.clientWidth - 2 * MARGIN), Math.max(1, this.parts.stage.clientHeight - 2 * MARGIN)];
  }

  /** In the mask's pixels: from 1% to 40% of its long side. */
  radius(pressure = 1) {
    const share = 0.01 * 40 ** (this.parts.size.value / 100);
    return Math.max(1, 0.5 * share * Math.max(...this.size) * pressure);
  }

  place(event) {
    const box = this.parts.canvas.getBoundingClientRect();
    const { scale, left, top } = this.camera.placed(this.size, this.view());
    return [(event.clientX - box.left - left - MARGIN) / scale, (event.clientY - box.top - top - MARGIN) / scale];
  }

  down(event) {
    if (event.button !== 0) return;
    if (!event.isPrimary) return this.giveUp(); // a second finger: it zooms
    this.parts.canvas.setPointerCapture(event.pointerId);
    this.active.mask.begin();
    this.last = null;
    this.strokeTo(this.place(event), pressureOf(event));
  }

  move(event) {
    if (this.active.mask.stroke && event.isPrimary) {
      const events = event.getCoalescedEvents?.() ?? [];
      for (const part of events.length ? events : [event]) this.strokeTo(this.place(part), pressureOf(part));
    }
    this.cursor = this.place(event);
    this.draw();
  }

  up(event) {
    if (event.isPrimary) this.finish();
  }

  finish() {
    if (!this.active.mask.stroke) return;
    this.active.mask.end();
    this.remember();
  }

  giveUp() {
    if (!this.active.mask.stroke) return;
    this.active.mask.end();
    this.tint(this.active, this.active.mask.undo());
    this.draw();
  }

  /** Dabs from where the stroke was to `point`, close enough to look like a line. */
  strokeTo(point, pressure) {
    const radius = this.radius(pressure);
    const from = this.last ?? point;
    const steps = Math.max(1, Math.ceil(Math.hypot(point[0] - from[0], point[1] - from[1]) / Math.max(1, radius / 5)));
    const softness = this.parts.softness.value / 100;
    for (let step = 1; step <= steps; step++) {
      const [x, y] = [0, 1].map((axis) => from[axis] + ((point[axis] - from[axis]) * step) / steps);
      this.tint(this.active, this.active.mask.dab(x, y, radius, softness, this.parts.eraser.checked));
    }
    this.last = this.cursor = point;
    this.draw();
  }

  key(event) {
    const moves = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (moves[event.key]) {
      const step = Math.max(1, this.radius() / 2);
      this.cursor = this.cursor.map((value, axis) => Math.max(0, Math.min(this.size[axis], value + step * moves[event.key][axis])));
    } else if (event.key === " ") {
      this.active.mask.begin();
      this.last = null;
      this.strokeTo(this.cursor, 1);
      this.finish();
    } else if (event.key === "[" || event.key === "]") {
      this.parts.size.value = Number(this.parts.size.value) + (event.key === "]" ? 5 : -5);
      fillRange(this.parts.size);
    } else if (event.key.toLowerCase() === "e") this.parts.eraser.checked = true;
    else if (event.key.toLowerCase() === "b") this.parts.brush.checked = true;
    else return;
    event.preventDefault();
    this.draw();
  }

  whole(change) {
    this.active.mask[change]();
    this.tint(this.active, { left: 0, top: 0, right: this.size[0], bottom: this.size[1] });
    this.remember();
    this.draw();
  }

  remember() {
    this.past.push(this.active);
    this.parts.undo.disabled = false;
  }

  undo() {
    const layer = this.past.pop();
    this.parts.undo.disabled = this.past.length === 0;
    const box = layer?.mask.undo();
    if (!box) return;
    this.tint(layer, box);
    this.draw();
  }

  /** A mask's values in its color, within a box. */
  tint(layer, box) {
    const [width, height] = [box.right - box.left, box.bottom - box.top];
    if (width <= 0 || height <= 0) return;
    const image = new ImageData(width, height);
    const [red, green, blue] = layer.color;
    for (let y = 0, at = 0; y < height; y++) {
      let from = (box.top + y) * layer.mask.width + box.left;
      for (let x = 0; x < width; x++) {
        image.data[at++] = red;
        image.data[at++] = green;
        image.data[at++] = blue;
        image.data[at++] = layer.mask.values[from++] * STRENGTH;
      }
    }
    layer.context.putImageData(image, box.left, box.top);
  }

  draw() {
    this.drawing ??= requestAnimationFrame(() => {
      this.drawing = null;
      this.paint();
    });
  }

  paint() {
    const { canvas, stage } = this.parts;
    const ratio = devicePixelRatio;
    [canvas.width, canvas.height] = [Math.round(stage.clientWidth * ratio), Math.round(stage.clientHeight * ratio)];
    const { scale, left, top } = this.camera.placed(this.size, this.view());
    const box = [left + MARGIN, top + MARGIN, this.size[0] * scale, this.size[1] * scale];
    const { context } = this;
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.imageSmoothingQuality = "high";
    context.drawImage(this.picture, ...box);
    context.globalAlpha = 0.25; // the colors stand out
    context.fillStyle = "#000";
    context.fillRect(...box);
    for (const layer of this.layers) {
      context.globalAlpha = layer === this.active ? 1 : 0.7;
      context.drawImage(layer.canvas, ...box);
    }
    context.globalAlpha = 1;
    this.ring(context, box[0] + this.cursor[0] * scale, box[1] + this.cursor[1] * scale, this.radius() * scale);
  }

  ring(context, x, y, radius) {
    for (const [width, color] of [[3, "#0009"], [1.5, this.parts.eraser.checked ? "#fff" : `rgb(${this.active.color})`]]) {
      context.beginPath();
      context.arc(x, y, Math.max(2, radius), 0, 2 * Math.PI);
      context.lineWidth = width;
      context.strokeStyle = color;
      context.stroke();
    }
  }
}

/** A pen's pressure makes the brush larger; a mouse and a finger have none. */
function pressureOf(event) {
  return event.pointerType === "pen" && event.pressure > 0 ? 0.3 + 0.7 * event.pressure : 1;
}
