/** Numbers, durations and settings as people read them. */

const NAMES = {
  size: "Size", iterations: "Iterations at each size", min_size: "Smallest size", scales: "Sizes", average: "Average",
  stop_when_settled: "Stop when settled", settled_fall: "Settled below", weights: "Network", preprocessing: "Preprocessing",
  device: "Device", precision: "Precision", threads: "Threads", tile: "Tile", content_weight: "Content",
  style_weight: "Style", tv_weight: "Smoothness", content_layers: "Content layers", style_layers: "Style layers",
  content_ws: "Content weights", style_lambdas: "Style weights", content_reduction: "Content cost",
  statistics: "Statistics", style_scales: "Size of strokes", style_sizes: "Size of the style's picture", style_scale: "Strokes", style_layer: "Style layers", content_layer: "Content layers", style_size: "Size of the style's picture", mask_feather: "Soften masks",
  border: "Border", colors: "Colors", optimizer: "Optimizer", learning_rate: "Learning rate", init: "Start from",
  noise: "Noise", seed: "Seed", pooling: "Pooling", depth: "Bits", quality: "Quality",
};

export const STATES = {
  queued: "Waiting", running: "Painting", paused: "Paused", stopped: "Stopped", failed: "Failed", done: "Finished",
};

/** "style_weight" -> "Style"; what has no name here is called by its own words. */
export function settingName(name) {
  return NAMES[name] ?? (name.charAt(0).toUpperCase() + name.slice(1)).replaceAll("_", " ");
}

/** "content-luminance" -> "Content luminance" */
export function choiceName(value) {
  const text = String(value).replaceAll("-", " ").replaceAll("_", " ");
  return text.length > 3 ? text.charAt(0).toUpperCase() + text.slice(1) : text;
}

/** 42 -> "42 s", 102 -> "1 min 42 s", 5000 -> "1 h 23 min" */
export function duration(seconds) {
  if (!Number.isFinite(seconds)) return "–";
  const whole = Math.max(0, Math.round(seconds));
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${whole % 60} s`;
  return `${Math.floor(whole / 3600)} h ${Math.floor((whole % 3600) / 60)} min`;
}

/** Three digits, whatever the magnitude: 0.02, 34.5, 12,300, 2.4e-7. */
export function number(value) {
  if (!Number.isFinite(value)) return "–";
  if (value === 0) return "0";
  const size = Math.abs(value);
  if (size >= 1e6 || size < 1e-3) return value.toExponential(2).replace(/\.?0+e/, "e").replace("e+", "e");
  return Number(value.toPrecision(3)).toLocaleString("en-US", { maximumFractionDigits: 6 });
}

/** "3,5e2" or "2.4e-7" -> a number; NaN for anything else. */
export function parsed(text) {
  const clean = text.trim().replace(/,(?=\d{3}(\D|$))/g, "").replace(",", ".");
  return clean === "" ? NaN : Number(clean);
}

export function times(count, one, many = `${one}s`) {
  return `${count.toLocaleString("en-US")} ${count === 1 ? one : many}`;
}

/** A value of a setting as the list of changes shows it. */
export function settingValue(value) {
  if (Array.isArray(value)) return value.length ? value.join(", ") : "as chosen";
  if (typeof value === "number") return number(value);
  if (typeof value === "boolean") return value ? "yes" : "no";
  return value === null || value === undefined ? "as measured" : choiceName(value);
}

/** One line for the list: what a run does, and how far it is. */
export function stateLine(run) {
  const share = run.iterations ? Math.min(1, (run.iteration ?? 0) / run.iterations) : 0;
  if (run.state === "failed") return run.error ? `Failed: ${run.error}` : "Failed";
  if (run.state === "running" || run.state === "paused") return `${STATES[run.state]} · ${Math.floor(100 * share)}%`;
  const size = run.size ? ` · ${run.size[0]} × ${run.size[1]}` : "";
  return `${STATES[run.state] ?? run.state}${size}`;
}
