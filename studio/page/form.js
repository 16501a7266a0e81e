/** Fields for a run's settings, made of what the server says about each: its kind, choices, limits and help. */

import { make } from "./dom.js";
import { choiceName, number, parsed, settingName } from "./words.js";

/** Settings that stand in front, with few choices each; all others are under "More settings". */
const ESSENTIALS = [
  { name: "size", label: "Size", choices: [[256, "256 px"], [null, "512 px"], [1024, "1024 px"]] }, // 512 enlarges nothing
  { name: "iterations", label: "Time", choices: [["40", "A look"], [null, "Normal"], ["300", "Patient"]] },
  { name: "style_scales", label: "Strokes", choices: [[[0.6], "Fine"], [[], "As they are"], [[1.6], "Broad"]] },
  { name: "colors", label: "Colors", choices: [["style", "Style’s"], ["match", "Matched"], ["content-luminance", "Content’s"]] },
];
/** What only makes sense on a command line, or is said by the pictures. */
const ELSEWHERE = new Set(["content", "styles", "content_mask", "style_masks", "style_regions", "weights_sha256", "size_at_most"]);

/** {essentials: [element], fields: [element], values()}; values() throws an Error with one line. */
export function settingsForm(settings) {
  const known = new Map(settings.map((setting) => [setting.name, setting]));
  const front = ESSENTIALS.filter(({ name }) => known.has(name)).map((essential) => segmented(essential, known.get(essential.name)));
  const named = new Set(ESSENTIALS.map(({ name }) => name));
  const rest = settings.filter(({ name }) => !named.has(name) && !ELSEWHERE.has(name)).map((setting) => ({ ...field(setting), group: setting.group }));
  return {
    essentials: front.map(({ root }) => root),
    fields: groups(rest),
    values() {
      const values = {};
      for (const { name, value } of [...front, ...rest]) {
        const given = value();
        if (given !== undefined) values[name] = given;
      }
      return values;
    },
  };
}

/** The fields under the headings of the command line's help. */
function groups(fields) {
  const byGroup = new Map();
  for (const { group, root } of fields) byGroup.set(group ?? "", [...(byGroup.get(group ?? "") ?? []), root]);
  return [...byGroup].map(([group, roots]) =>
    make("fieldset", {}, make("legend", { class: "overline" }, group), make("div", { class: "fields" }, ...roots)));
}

/** Help as it is written for the command line, its options by the names that they have here. */
function plain(help) {
  return help.replace(/ ?May be repeated\.?/, " Several: with commas.").replace(/--([a-z]+(-[a-z]+)*)/g, (_, option) => `“${settingName(option.replaceAll("-", "_"))}”`);
}

/** A row of choices; one that equals the default is left unsaid. */
function segmented({ name, label, choices }, setting) {
  const group = make("div", { class: "segmented", role: "radiogroup", "aria-label": label });
  const same = (value) => JSON.stringify(value) === JSON.stringify(setting.default ?? null);
  const chosen = Math.max(0, choices.findIndex(([value]) => same(value) || value === null || (Array.isArray(value) && !value.length)));
  choices.forEach(([, text], index) => {
    const radio = make("input", { type: "radio", name: `essential-${name}`, value: index, checked: index === chosen });
    group.append(make("label", {}, radio, make("span", {}, text)));
  });
  const root = make("div", { class: "field", "data-setting": name }, make("span", {}, label), group);
  const value = () => {
    const picked = choices[group.querySelector(":checked").value][0];
    return picked === null || same(picked) ? undefined : picked;
  };
  return { name, root, value };
}

function field(setting) {
  const { name, kind, help } = setting;
  const id = `setting-${name}`;
  const control = { choice: select, flag, integer: numeric, number: numeric, list, text }[kind] ?? text;
  const { element, value } = control(setting, id);
  const described = help ? make("p", { class: "field-help", id: `${id}-help` }, plain(help)) : "";
  if (help) element.setAttribute("aria-describedby", `${id}-help`);
  const root = kind === "flag"
    ? make("div", { class: "field", "data-setting": name }, make("label", { class: "switch" }, element, settingName(name)), described)
    : make("div", { class: "field", "data-setting": name }, make("label", { for: id }, settingName(name)), element, described);
  return { name, root, value };
}

function select(setting, id) {
  const element = make("select", { class: "select", id });
  if (setting.default === null) element.append(make("option", { value: "" }, setting.shown_default || "As it comes"));
  for (const choice of setting.choices) {
    element.append(make("option", { value: choice, selected: choice === setting.default }, choiceName(choice)));
  }
  return { element, value: () => (element.value === "" || element.value === setting.default ? undefined : element.value) };
}

function flag(setting, id) {
  const element = make("input", { type: "checkbox", role: "switch", id, checked: setting.default === true });
  return { element, value: () => (element.checked === setting.default ? undefined : element.checked) };
}

function textInput(setting, id, mode) {
  const shown = setting.shown_default || String(setting.default ?? "") || "as it comes";
  return make("input", { class: "input", id, type: "text", inputmode: mode, placeholder: shown, autocomplete: "off", spellcheck: "false" });
}

function text(setting, id) {
  const element = textInput(setting, id, "text");
  return { element, value: () => element.value.trim() || undefined };
}

function list(setting, id) {
  const element = textInput(setting, id, "text");
  const items = () => element.value.split(",").map((item) => item.trim()).filter(Boolean);
  const numeric = setting.of === "number" || setting.of === "integer";
  return { element, value: () => (items().length ? items().map((item) => (numeric ? numberOf(setting, item, element) : item)) : undefined) };
}

function numeric(setting, id) {
  const element = textInput(setting, id, setting.kind === "integer" ? "numeric" : "decimal");
  element.addEventListener("input", () => element.removeAttribute("aria-invalid"));
  return { element, value: () => (element.value.trim() ? numberOf(setting, element.value, element) : undefined) };
}

function numberOf({ name, kind, of, low, high }, text, element) {
  const value = parsed(text);
  const whole = kind === "integer" || of === "integer";
  const outside = (low !== null && low !== undefined && value < low) || (high !== null && high !== undefined && value > high);
  if (Number.isFinite(value) && !(whole && !Number.isInteger(value)) && !outside) return value;
  element.setAttribute("aria-invalid", "true");
  element.closest("details")?.setAttribute("open", "");
  element.focus();
  const range = outside && Number.isFinite(value) ? ` from ${number(low ?? -Infinity)} to ${number(high ?? Infinity)}` : "";
  throw new Error(`${settingName(name)}: “${text.trim()}” is not a${whole ? " whole" : ""} number${range}.`);
}
