/**
 * Which part of a picture is seen, apart from the size of picture and window, so that several windows can share one.
 * `zoom` 1 shows the whole picture; `x` and `y`, 0..1 of the picture, are at the window's middle.
 */

const LARGEST = 16; // window pixels for one of the picture

export class Camera extends EventTarget {
  zoom = 1;
  x = 0.5;
  y = 0.5;

  /** Where a picture of `size` lies in `view` (both [width, height] in CSS pixels): {scale, left, top}. */
  placed(size, view) {
    const scale = this.fitting(size, view) * this.zoom;
    return { scale, left: view[0] / 2 - this.x * size[0] * scale, top: view[1] / 2 - this.y * size[1] * scale };
  }

  fitting(size, view) {
    return Math.max(1e-6, Math.min(view[0] / size[0], view[1] / size[1]));
  }

  fit() {
    [this.zoom, this.x, this.y] = [1, 0.5, 0.5];
    this.changed();
  }

  /** One pixel of the picture for one of the screen, about the middle. */
  full(size, view) {
    this.zoom = 1 / (devicePixelRatio * this.fitting(size, view));
    this.keepInside(size, view);
    this.changed();
  }

  /** Larger by `factor`, what lies at `point` of the window staying there. */
  zoomAt(factor, point, size, view) {
    const { scale, left, top } = this.placed(size, view);
    const fit = this.fitting(size, view);
    const smallest = Math.min(1, 1 / (devicePixelRatio * fit));
    const wanted = Math.max(smallest, Math.min(LARGEST / fit, this.zoom * factor));
    const grown = (scale * wanted) / this.zoom;
    this.x = ((point[0] - left) / scale + (view[0] / 2 - point[0]) / grown) / size[0];
    this.y = ((point[1] - top) / scale + (view[1] / 2 - point[1]) / grown) / size[1];
    this.zoom = wanted;
    this.keepInside(size, view);
    this.changed();
  }

  /** Moves the picture by so many CSS pixels. */
  pan(right, down, size, view) {
    const { scale } = this.placed(size, view);
    this.x -= right / (scale * size[0]);
    this.y -= down / (scale * size[1]);
    this.keepInside(size, view);
    this.changed();
  }

  /** No empty room at a side while the other side hangs over. */
  keepInside(size, view) {
    const scale = this.fitting(size, view) * this.zoom;
    const inside = (middle, length, room) => {
      const half = room / (2 * length * scale);
      return half >= 0.5 ? 0.5 : Math.max(half, Math.min(1 - half, middle));
    };
    this.x = inside(this.x, size[0], view[0]);
    this.y = inside(this.y, size[1], view[1]);
  }

  changed() {
    this.dispatchEvent(new Event("change"));
  }
}
