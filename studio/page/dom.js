/** Small ways to reach and make elements. Markup stands in index.html; what people typed only ever becomes text. */

export const byId = (id) => document.getElementById(id);

/** A copy of a template's one element, and its parts by their data-part names. */
export function clone(template) {
  const root = byId(template).content.firstElementChild.cloneNode(true);
  return [root, parts(root)];
}

export function parts(root) {
  const found = {};
  for (const element of root.querySelectorAll("[data-part]")) found[element.dataset.part] = element;
  return found;
}

/** make("p", {class: "muted", hidden: true}, "text", child): attributes as they stand in HTML, true for bare ones. */
export function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === false || value === null || value === undefined) continue;
    element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children);
  return element;
}

export function icon(name) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  const use = document.createElementNS("http://www.w3.org/2000/svg", "use");
  svg.setAttribute("class", "icon");
  use.setAttribute("href", `#i-${name}`);
  svg.append(use);
  return svg;
}

/** Says one line to a screen reader. Used for what was done, never for what goes on by itself. */
export function announce(text) {
  byId("announcer").textContent = text;
}

/** Fills a slider's track up to its value; the style sheet has no other way to know. */
export function fillRange(range) {
  const share = (range.value - range.min) / (range.max - range.min || 1);
  range.style.setProperty("--fill", `${(100 * share).toFixed(1)}%`);
}

/** `action` at most once in `milliseconds`, the last call's arguments counting. */
export function atMostEvery(milliseconds, action) {
  let timer = null;
  let last = 0;
  let latest;
  return (...values) => {
    latest = values;
    if (timer !== null) return;
    timer = setTimeout(
      () => {
        timer = null;
        last = performance.now();
        action(...latest);
      },
      Math.max(0, last + milliseconds - performance.now()),
    );
  };
}

/** Asks in a dialog; true where the answer is yes. */
export function confirmed(title, text) {
  const dialog = byId("confirm");
  byId("confirm-title").textContent = title;
  byId("confirm-text").textContent = text;
  dialog.returnValue = "";
  dialog.showModal();
  return new Promise((resolve) => {
    byId("confirm-no").onclick = () => dialog.close("no");
    byId("confirm-yes").onclick = () => dialog.close("yes");
    dialog.onclose = () => resolve(dialog.returnValue === "yes");
  });
}
