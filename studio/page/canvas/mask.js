/** A mask as numbers: one byte a pixel, 255 where it counts. Strokes keep the larger value, so that soft edges stay soft. */

const UNDO_STEPS = 40;

export class Mask {
  constructor(width, height) {
    this.width = width;
    this.height = height;
    this.values = new Uint8ClampedArray(width * height);
    this.past = [];
    this.stroke = null;
  }

  isEmpty() {
    return !this.values.some((value) => value > 0);
  }

  /** What follows up to `end` is undone at once. */
  begin() {
    this.stroke = { before: this.values.slice(), box: null };
  }

  end() {
    const { before, box } = this.stroke;
    this.stroke = null;
    if (!box) return;
    const rows = [];
    for (let y = box.top; y < box.bottom; y++) rows.push(before.slice(y * this.width + box.left, y * this.width + box.right));
    this.past.push({ box, rows });
    if (this.past.length > UNDO_STEPS) this.past.shift();
  }

  undo() {
    const last = this.past.pop();
    if (!last) return null;
    last.rows.forEach((row, index) => this.values.set(row, (last.box.top + index) * this.width + last.box.left));
    return last.box;
  }

  /** A round dab; `softness` 0..1 is the share of the radius over which it fades. Returns the box that it touched. */
  dab(x, y, radius, softness, erase) {
    const box = this.clipped({ left: Math.floor(x - radius), top: Math.floor(y - radius), right: Math.ceil(x + radius) + 1, bottom: Math.ceil(y + radius) + 1 });
    const fade = Math.max(1, radius * softness);
    for (let row = box.top; row < box.bottom; row++) {
      for (let column = box.left; column < box.right; column++) {
        const inside = (radius - Math.hypot(column - x, row - y)) / fade;
        if (inside <= 0) continue;
        const share = Math.min(1, inside);
        const strength = 255 * share * share * (3 - 2 * share);
        const at = row * this.width + column;
        this.values[at] = erase ? Math.min(this.values[at], 255 - strength) : Math.max(this.values[at], strength);
      }
    }
    this.touch(box);
    return box;
  }

  invert() {
    this.whole((value) => 255 - value);
  }

  clear() {
    this.whole(() => 0);
  }

  whole(change) {
    this.begin();
    this.values.forEach((value, at) => { this.values[at] = change(value); });
    this.touch({ left: 0, top: 0, right: this.width, bottom: this.height });
    this.end();
  }

  touch(box) {
    if (!this.stroke) return;
    const old = this.stroke.box ?? box;
    this.stroke.box = {
      left: Math.min(old.left, box.left), top: Math.min(old.top, box.top),
      right: Math.max(old.right, box.right), bottom: Math.max(old.bottom, box.bottom),
    };
  }

  clipped({ left, top, right, bottom }) {
    const within = (value, most) => Math.max(0, Math.min(most, value));
    return { left: within(left, this.width), top: within(top, this.height), right: within(right, this.width), bottom: within(bottom, this.height) };
  }

  copy() {
    const other = new Mask(this.width, this.height);
    other.values.set(this.values);
    return other;
  }

  /** As a PNG, white where it counts. */
  async png() {
    const canvas = new OffscreenCanvas(this.width, this.height);
    const image = new ImageData(this.width, this.height);
    const pixels = new Uint32Array(image.data.buffer); // alpha, blue, green, red, from the highest byte down
    this.values.forEach((value, at) => { pixels[at] = 0xff000000 | (value << 16) | (value << 8) | value; });
    canvas.getContext("2d").putImageData(image, 0, 0);
    return canvas.convertToBlob({ type: "image/png" });
  }
}
