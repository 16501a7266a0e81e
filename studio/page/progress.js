/** How far a painting is: a bar with a part for each scale, and scale, iteration, pace and time left as words. */

import { clone, make } from "./dom.js";
import { duration, number } from "./words.js";

const PACE_OVER = 4; // seconds

export class Progress {
  constructor() {
    [this.root, this.parts] = clone("t-progress");
    this.scales = [];
    this.fills = [];
    this.recent = [];
  }

  /** scales: [{size, iterations}], as the run says when it has begun. */
  begin(scales) {
    this.scales = scales;
    this.recent = [];
    this.fills = scales.map(() => make("span"));
    this.parts.bar.replaceChildren(...scales.map((scale, index) => {
      const part = make("div", { class: "scale-part", title: `${scale.size[0]} × ${scale.size[1]}` }, this.fills[index]);
      part.style.flexGrow = String(scale.iterations);
      return part;
    }));
  }

  /** The newest progress event. */
  show(event) {
    if (Number.isFinite(event.seconds)) this.recent.push(event);
    while (this.recent.length > 2 && event.seconds - this.recent[0].seconds > PACE_OVER) this.recent.shift();
    const share = event.iterations ? Math.min(1, event.iteration / event.iterations) : 0;
    let left = event.iteration;
    this.scales.forEach(({ iterations }, index) => {
      this.fills[index].style.width = `${100 * Math.max(0, Math.min(1, left / iterations))}%`;
      left -= iterations;
    });
    this.parts.bar.setAttribute("aria-valuenow", Math.round(100 * share));
    const size = event.size ? `${event.size[0]} × ${event.size[1]}` : "";
    this.parts.scale.textContent = event.scales > 1 ? `${event.scale} of ${event.scales} · ${size}` : size;
    this.parts.iteration.textContent = `${event.iteration.toLocaleString("en-US")} of ${event.iterations.toLocaleString("en-US")}`;
    this.parts.pace.textContent = this.pace();
    this.parts.left.textContent = duration(event.remaining ?? NaN);
  }

  pace() {
    if (this.recent.length < 2) return "–";
    const [first, last] = [this.recent[0], this.recent.at(-1)];
    const seconds = last.seconds - first.seconds;
    const done = last.iteration - first.iteration;
    if (seconds <= 0 || done <= 0) return "–";
    return done >= seconds ? `${number(done / seconds)} iterations a second` : `${number(seconds / done)} s an iteration`;
  }

  finished(seconds) {
    for (const fill of this.fills) fill.style.width = "100%";
    this.parts.bar.setAttribute("aria-valuenow", 100);
    this.parts.left.textContent = "finished";
    if (Number.isFinite(seconds)) this.parts.pace.textContent = `took ${duration(seconds)}`;
  }

  halted(word) {
    this.recent = [];
    this.parts.pace.textContent = "–";
    this.parts.left.textContent = word;
  }
}
