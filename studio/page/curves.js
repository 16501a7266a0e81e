/** The costs by iteration on a logarithmic scale, a line for each layer or sum, with a legend that switches them. */

import { atMostEvery, clone, make } from "./dom.js";
import { number } from "./words.js";

const SUMS = ["total", "content", "style", "tv"];
const LABELS = { total: "Total", content: "Content", style: "Style", tv: "Smoothness" };
const MOST_POINTS = 2000; // of a line; every second one is dropped beyond
const COLORS = 8;
const EDGE = { left: 44, right: 8, top: 8, bottom: 20 };

export class Curves {
  constructor() {
    [this.root, this.parts] = clone("t-curves");
    this.context = this.parts.plot.getContext("2d");
    this.redraw = atMostEvery(200, () => this.paint());
    this.watcher = new ResizeObserver(this.redraw);
    this.watcher.observe(this.root);
    this.scheme = matchMedia("(prefers-color-scheme: light)");
    this.scheme.addEventListener("change", this.redraw);
    document.addEventListener("themechange", this.redraw);
    this.group = "layers";
    this.hidden = new Set();
    this.hover = null;
    this.parts.groups.addEventListener("change", (event) => { this.group = event.target.value; this.legend = null; this.redraw(); });
    this.parts.plot.addEventListener("pointermove", (event) => { this.hover = event.offsetX; this.redraw(); });
    this.parts.plot.addEventListener("pointerleave", () => { this.hover = null; this.redraw(); });
    this.reset();
  }

  reset() {
    this.series = { layers: new Map(), sums: new Map() };
    this.at = []; // iterations, shared by all lines
    this.marks = [];
    this.legend = null;
    this.boundaries = [];
  }

  begin(scales) {
    let sum = 0;
    this.boundaries = scales.slice(0, -1).map(({ iterations }) => (sum += iterations));
    this.redraw();
  }

  mark(iteration) {
    this.marks.push(iteration);
    this.redraw();
  }

  /** costs: of one iteration, {iteration, total, content, style, tv, per_layer}. */
  add(costs) {
    if (this.at.length && costs.iteration <= this.at.at(-1)) return;
    this.at.push(costs.iteration);
    for (const name of SUMS) this.put("sums", name, costs[name]);
    for (const [name, cost] of Object.entries(costs.per_layer ?? {})) this.put("layers", name, cost);
    for (const lines of Object.values(this.series)) for (const line of lines.values()) while (line.length < this.at.length) line.push(NaN);
    if (this.at.length > MOST_POINTS) this.thin();
    this.redraw();
  }

  put(group, name, cost) {
    const lines = this.series[group];
    if (!lines.has(name)) {
      lines.set(name, Array(this.at.length - 1).fill(NaN));
      this.legend = null;
    }
    lines.get(name).push(typeof cost === "number" ? cost : NaN);
  }

  thin() {
    const half = (values) => values.filter((_, index) => index % 2 === 0 || index === values.length - 1);
    this.at = half(this.at);
    for (const lines of Object.values(this.series)) for (const [name, line] of lines) lines.set(name, half(line));
  }

  lines() {
    return [...this.series[this.group]].map(([name, line], index) => ({ name, line, color: `--curve-${(index % COLORS) + 1}` }));
  }

  makeLegend() {
    this.legend = new Map();
    this.parts.legend.replaceChildren(...this.lines().map(({ name, color }) => {
      const value = make("span", { class: "value" });
      const swatch = document.createElementNS("http://www.w3.org/2000/svg", "svg");
      const bar = document.createElementNS("http://www.w3.org/2000/svg", "rect");
      for (const [key, number] of Object.entries({ width: 14, height: 3, rx: 1.5 })) bar.setAttribute(key, number);
      bar.style.fill = `var(${color})`;
      swatch.append(bar);
      const button = make("button", { type: "button", "aria-pressed": String(!this.hidden.has(name)) }, swatch, LABELS[name] ?? name, value);
      button.onclick = () => {
        if (!this.hidden.delete(name)) this.hidden.add(name);
        button.setAttribute("aria-pressed", String(!this.hidden.has(name)));
        this.redraw();
      };
      this.legend.set(name, value);
      return make("li", {}, button);
    }));
  }

  paint() {
    const { plot } = this.parts;
    const [width, height] = [plot.clientWidth, plot.clientHeight];
    if (!width) return;
    if (!this.legend) this.makeLegend();
    const ratio = devicePixelRatio;
    [plot.width, plot.height] = [Math.round(width * ratio), Math.round(height * ratio)];
    const { context } = this;
    context.scale(ratio, ratio);
    const colors = getComputedStyle(plot);
    const color = (name) => colors.getPropertyValue(name);
    context.font = `11px ${colors.fontFamily}`;
    const shown = this.lines().filter(({ name }) => !this.hidden.has(name));
    const logs = shown.flatMap(({ line }) => line.filter((value) => value > 0)).map(Math.log10);
    if (!logs.length) {
      context.fillStyle = color("--muted");
      context.fillText(this.at.length ? "Nothing to draw." : "Costs appear with the first iterations.", 0, 20);
      return;
    }
    const [low, high] = padded(logs.reduce((a, b) => Math.min(a, b)), logs.reduce((a, b) => Math.max(a, b)));
    const last = Math.max(this.at.at(-1), 2);
    const x = (iteration) => EDGE.left + ((width - EDGE.left - EDGE.right) * (iteration - 1)) / (last - 1);
    const y = (log) => EDGE.top + ((height - EDGE.top - EDGE.bottom) * (high - log)) / (high - low);
    this.paintGrid({ context, color, width, height, low, high, last, x, y });
    for (const { line, color: name } of shown) {
      context.beginPath();
      let open = false;
      line.forEach((value, index) => {
        if (!(value > 0)) open = false;
        else if (open) context.lineTo(x(this.at[index]), y(Math.log10(value)));
        else {
          context.moveTo(x(this.at[index]), y(Math.log10(value)));
          open = true;
        }
      });
      context.strokeStyle = color(name);
      context.lineWidth = 1.6;
      context.lineJoin = "round";
      context.stroke();
    }
    this.paintValues({ context, color, height, x, width });
  }

  paintGrid({ context, color, width, height, low, high, last, x, y }) {
    context.lineWidth = 1;
    context.strokeStyle = color("--line");
    context.fillStyle = color("--muted");
    context.textBaseline = "middle";
    context.textAlign = "right";
    for (const log of ticks(low, high)) {
      context.beginPath();
      context.moveTo(EDGE.left, y(log));
      context.lineTo(width - EDGE.right, y(log));
      context.stroke();
      context.fillText(tickLabel(10 ** log), EDGE.left - 6, y(log));
    }
    context.setLineDash([2, 3]);
    context.strokeStyle = color("--edge");
    for (const boundary of this.boundaries.filter((each) => each < last)) {
      context.beginPath();
      context.moveTo(x(boundary + 1), EDGE.top);
      context.lineTo(x(boundary + 1), height - EDGE.bottom);
      context.stroke();
    }
    context.setLineDash([]);
    context.fillStyle = color("--accent");
    for (const mark of this.marks) {
      const at = x(Math.max(1, Math.min(last, mark)));
      context.beginPath();
      context.moveTo(at, height - EDGE.bottom - 1);
      context.lineTo(at - 4, height - EDGE.bottom + 6);
      context.lineTo(at + 4, height - EDGE.bottom + 6);
      context.fill();
    }
    context.fillStyle = color("--muted");
    context.textBaseline = "bottom";
    context.textAlign = "left";
    context.fillText("1", EDGE.left, height - 1);
    context.textAlign = "right";
    context.fillText(last.toLocaleString("en-US"), width - EDGE.right, height - 1);
  }

  /** The legend says the newest costs, or those under the pointer. */
  paintValues({ context, color, height, x, width }) {
    let index = this.at.length - 1;
    if (this.hover !== null) {
      index = this.at.reduce((best, iteration, each) => (Math.abs(x(iteration) - this.hover) < Math.abs(x(this.at[best]) - this.hover) ? each : best), 0);
      context.strokeStyle = color("--text");
      context.beginPath();
      context.moveTo(x(this.at[index]), EDGE.top);
      context.lineTo(x(this.at[index]), height - EDGE.bottom);
      context.stroke();
      context.fillStyle = color("--text");
      context.textAlign = x(this.at[index]) > width / 2 ? "right" : "left";
      context.textBaseline = "top";
      context.fillText(` ${this.at[index].toLocaleString("en-US")} `, x(this.at[index]), 0);
    }
    for (const { name, line } of this.lines()) this.legend.get(name).textContent = number(line[index]);
  }

  close() {
    this.watcher.disconnect();
    this.scheme.removeEventListener("change", this.redraw);
    document.removeEventListener("themechange", this.redraw);
  }
}

/** Short enough for the room at the left: 0.01, 500, 1e5. */
function tickLabel(value) {
  return value >= 1e4 ? value.toExponential(0).replace("e+", "e") : number(value);
}

function padded(low, high) {
  const room = Math.max(0.04, (high - low) * 0.04);
  return [low - room, high + room];
}

/** Logarithms of round numbers between two: decades where there are enough of them, else 1, 2 and 5 of each. */
function ticks(low, high) {
  const steps = high - low > 5 ? [0] : high - low > 1.5 ? [0] : [0, Math.log10(2), Math.log10(5)];
  const every = Math.max(1, Math.ceil((high - low) / 6));
  const found = [];
  for (let decade = Math.floor(low); decade <= high; decade += every) {
    for (const step of steps) if (decade + step >= low && decade + step <= high) found.push(decade + step);
  }
  return found;
}
