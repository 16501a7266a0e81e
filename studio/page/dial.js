/** One number that may be changed: a slider in factors of what it was, and the number itself. */

import { clone, fillRange } from "./dom.js";
import { number, parsed } from "./words.js";

const STEPS = 100; // of the slider, to either side

export class Dial {
  /** span: the slider goes from 1/span to span times `base`; changed(value) is called when a value was chosen. */
  constructor({ name, label, span, changed }) {
    [this.root, this.parts] = clone("t-dial");
    this.span = span;
    this.base = null;
    this.value = null;
    this.inEffect = null;
    this.asked = null; // while it is pending
    this.changed = changed;
    const { range, number: input, factor } = this.parts;
    const id = `dial-${name}`;
    this.root.dataset.setting = name;
    this.parts.label.textContent = label;
    this.parts.label.htmlFor = id;
    input.setAttribute("aria-label", `${label}, as a number`);
    Object.assign(range, { id, min: -STEPS, max: STEPS, step: 1 });
    range.addEventListener("input", () => this.show(this.base * this.factorOf(range.value)));
    range.addEventListener("change", () => this.choose(this.base * this.factorOf(range.value)));
    input.addEventListener("change", () => this.typed(input));
    input.addEventListener("input", () => input.removeAttribute("aria-invalid"));
    factor.onclick = () => this.choose(this.base);
    this.disable(true);
  }

  factorOf(position) {
    return this.span ** (position / STEPS);
  }

  /** `base` is ×1; `value` what it is now. Null where there is nothing to change. */
  set(base, value = base) {
    const usable = Number.isFinite(base) && base > 0;
    this.base = usable ? base : null;
    this.disable(!usable);
    if (usable) this.settle(value);
  }

  disable(disabled) {
    for (const name of ["range", "number", "factor"]) this.parts[name].disabled = disabled;
  }

  show(value) {
    this.value = value;
    const { range, number: input, factor } = this.parts;
    const times = value / this.base;
    range.value = times > 0 ? Math.round((STEPS * Math.log(times)) / Math.log(this.span)) : -STEPS;
    range.setAttribute("aria-valuetext", `${number(times)} times, ${number(value)}`);
    fillRange(range);
    input.value = number(value);
    factor.textContent = `× ${number(times)}`;
  }

  typed(input) {
    const value = parsed(input.value);
    if (Number.isFinite(value) && value >= 0) return this.choose(value);
    input.setAttribute("aria-invalid", "true");
    return this.say(`“${input.value.trim()}” is not a number of zero or more.`);
  }

  choose(value) {
    const { classList } = this.root;
    this.show(value);
    this.say("");
    if (value === (classList.contains("pending") ? this.asked : this.inEffect)) return;
    this.asked = value;
    classList.add("pending");
    this.changed(value);
  }

  /** The change came into effect. */
  settle(value) {
    this.root.classList.remove("pending");
    this.inEffect = value;
    this.say("");
    if (this.base !== null) this.show(value);
  }

  /** The change was not taken: back to what is in effect. */
  refuse(why) {
    if (this.base !== null) this.settle(this.inEffect);
    this.say(why);
  }

  say(line) {
    this.parts.error.textContent = line;
  }
}
