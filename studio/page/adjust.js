/** What may be changed while it paints: weights, layers, strokes, colors, statistics. Sent once chosen, shown once true. */

import * as api from "./api.js";
import { Dial } from "./dial.js";
import { fillRange, make } from "./dom.js";
import { choiceName, number, parsed, settingName } from "./words.js";

const DIALS = [
  { name: "style_weight", span: 32 },
  { name: "content_weight", span: 32 },
  { name: "tv_weight", span: 32 },
  { name: "learning_rate", span: 8 },
  { name: "style_scales", span: 4 },
];
const CHOICES = ["colors", "statistics"];

export class Adjust {
  /** about: for the layers and choices that there are; id: the run. */
  constructor(about, id) {
    this.id = id;
    this.about = about;
    this.waiting = {};
    this.root = make("div", { class: "adjust" });
    this.error = make("p", { class: "error-line", role: "alert" });
    this.dials = new Map(DIALS.map(({ name, span }) => [
      name, new Dial({ name, span, label: settingName(name), changed: (value) => this.send({ [name]: name === "style_scales" ? [value] : value }) }),
    ]));
    this.selects = new Map(CHOICES.map((name) => [name, this.select(name)]));
    this.rows = new Map();
    this.layerRows = make("div", { class: "layer-rows" });
    const selects = [...this.selects.values()].filter(Boolean).map((select) => select.parentElement);
    this.root.append(
      ...[...this.dials.values()].map(({ root }) => root),
      make("div", { class: "pair" }, ...selects),
      make("details", { class: "layers" }, make("summary", {}, "Layers of the style"), this.layerRows),
      make("p", { class: "afresh" }, "Weights act at the next iteration. Strokes, colors, statistics and other layers go on from the picture as it is."),
      this.error,
    );
    this.setEnabled(false);
  }

  select(name) {
    const setting = (this.about.settings ?? []).find((each) => each.name === name);
    if (!setting?.choices) return null;
    const select = make("select", { class: "select", id: `adjust-${name}` }, ...setting.choices.map((choice) => make("option", { value: choice }, choiceName(choice))));
    select.addEventListener("change", () => this.send({ [name]: select.value }));
    make("div", { class: "field", "data-setting": name }, make("label", { for: select.id }, settingName(name)), select);
    return select;
  }

  /** taken: the settings as the run took them, measured weights included. */
  begin(taken) {
    this.taken = taken;
    for (const [name, dial] of this.dials) dial.set(baseOf(name, taken[name]));
    for (const [name, select] of this.selects) if (select && taken[name] !== undefined) this.pick(select, taken[name]);
    this.makeLayers(layersOf(taken.style_layers));
  }

  /** A value beside the usual ones (gram+w2, say) is offered too. */
  pick(select, value) {
    if (![...select.options].some((option) => option.value === String(value))) select.append(make("option", { value }, choiceName(value)));
    select.value = value;
  }

  makeLayers(weights) {
    const names = new Set([...(this.about.layers ?? []), ...weights.keys()]);
    this.rows.clear();
    this.layerRows.replaceChildren(...[...names].sort().map((name) => {
      const used = make("input", { class: "check", type: "checkbox", checked: weights.has(name), "aria-label": `Use ${name}` });
      const range = make("input", { class: "range", type: "range", min: 0, max: 4, step: 0.05, value: weights.get(name) ?? 1, "aria-label": `Weight of ${name}` });
      const input = make("input", { class: "input number", type: "text", inputmode: "decimal", value: number(weights.get(name) ?? 1), "aria-label": `Weight of ${name}, as a number` });
      used.addEventListener("change", () => this.sendLayers());
      range.addEventListener("input", () => { input.value = number(Number(range.value)); fillRange(range); });
      range.addEventListener("change", () => { used.checked = true; this.sendLayers(); });
      input.addEventListener("change", () => {
        const value = parsed(input.value);
        if (!(value >= 0)) { this.error.textContent = `${name}: “${input.value}” is not a number of zero or more.`; return; }
        range.value = value;
        fillRange(range);
        used.checked = true;
        this.sendLayers();
      });
      fillRange(range);
      this.rows.set(name, { used, range, input });
      return make("div", { class: "dial layer" }, used, make("span", { class: "dial-label" }, name), range, input);
    }));
  }

  sendLayers() {
    const chosen = [...this.rows].filter(([, { used }]) => used.checked).map(([name, { input }]) => `${name}=${parsed(input.value)}`);
    if (!chosen.length) { this.error.textContent = "At least one layer of the style has to stay."; return; }
    this.send({ style_layers: chosen });
  }

  /** Changes that are chosen at once go together. */
  send(changes) {
    this.error.textContent = "";
    Object.assign(this.waiting, changes);
    clearTimeout(this.timer);
    this.timer = setTimeout(async () => {
      const together = this.waiting;
      this.waiting = {};
      try {
        await api.patch(this.id, { changes: together });
      } catch (error) {
        this.refused(together, error.message);
      }
    }, 120);
  }

  /** The run said that these are in effect. */
  changed(changes) {
    for (const [name, value] of Object.entries(changes)) {
      this.dials.get(name)?.settle(Array.isArray(value) ? value[0] : value);
      if (this.selects.get(name)) this.pick(this.selects.get(name), value);
      if (name === "style_layers") this.makeLayers(layersOf(value));
    }
  }

  refused(changes, why) {
    const dial = Object.keys(changes ?? {}).map((name) => this.dials.get(name)).find(Boolean);
    if (dial) dial.refuse(why);
    else this.error.textContent = why;
  }

  setEnabled(enabled) {
    for (const element of this.root.querySelectorAll("input, select, button")) element.disabled = !enabled;
    if (enabled) for (const dial of this.dials.values()) dial.disable(dial.base === null);
  }
}

function baseOf(name, value) {
  const plain = Array.isArray(value) ? value[0] : value;
  return name === "style_scales" ? plain ?? 1 : plain;
}

/** ["relu1_1=2", "relu2_1"] or {relu1_1: 2} -> Map */
function layersOf(given) {
  if (!given) return new Map();
  if (!Array.isArray(given)) return new Map(Object.entries(given));
  return new Map(given.map((text) => {
    const [name, weight] = String(text).split("=");
    return [name, weight === undefined ? 1 : Number(weight)];
  }));
}
