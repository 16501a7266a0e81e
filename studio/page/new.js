/** The page of a new painting: a content, one or several styles, masks, settings, and the button that starts it. */

import * as api from "./api.js";
import { Card } from "./card.js";
import { announce, clone } from "./dom.js";
import { settingsForm } from "./form.js";
import { paintMasks } from "./masks.js";
import { parsed } from "./words.js";

const KEEP = { key: "keep", label: "Keep as it is", color: [236, 236, 240] };
const COLORS = [[226, 150, 62], [92, 150, 222], [110, 190, 120], [222, 110, 170], [160, 130, 240], [80, 196, 190], [230, 110, 80], [206, 196, 80]];

export class NewPainting {
  /** about: what the server says of itself; like: a run whose styles and settings are to be used again, or null. */
  constructor(about, like) {
    [this.root, this.parts] = clone("t-new");
    this.about = about;
    this.like = like;
    this.busy = false;
    this.content = this.card("Content", "The picture to paint");
    this.styles = [];
    this.addStyle();
    this.form = settingsForm(about.settings ?? []);
    this.parts.essentials.append(...this.form.essentials);
    this.parts.fields.append(...this.form.fields);
    this.parts.add.onclick = () => this.addStyle().parts.file.focus();
    this.parts.example.onclick = () => this.begin(() => api.startExample());
    this.parts.form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.begin(async () => api.start(await this.filled()));
    });
    if (like) this.reuse(like);
    this.listenToWindow();
  }

  card(title, prompt) {
    const card = new Card(title, prompt);
    card.addEventListener("picture", () => this.changed());
    card.addEventListener("refused", (event) => this.say(event.detail));
    card.addEventListener("dropped", (event) => this.takeAll(event.detail, card));
    card.addEventListener("mask", () => this.paintMasks(card));
    this.parts.cards.append(card.root);
    return card;
  }

  addStyle() {
    const card = this.card("Style", "How to paint it");
    card.addEventListener("remove", () => this.removeStyle(card));
    this.styles.push(card);
    this.changed();
    return card;
  }

  removeStyle(card) {
    const index = this.styles.indexOf(card);
    this.styles.splice(index, 1);
    card.root.remove();
    const masks = [...this.content.masks].filter(([key]) => key !== `style-${index}`);
    this.content.masks = new Map(masks.map(([key, mask]) => {
      const at = Number(key.split("-")[1]);
      return [at > index ? `style-${at - 1}` : key, mask];
    }));
    this.changed();
    this.parts.add.focus();
  }

  changed() {
    const several = this.styles.length > 1;
    this.styles.forEach((card, index) => {
      card.rename(several ? `Style ${index + 1}` : "Style");
      card.parts.remove.hidden = card.parts.share.hidden = !several;
    });
    const most = this.about.limits?.styles ?? 8;
    this.parts.add.hidden = Boolean(this.like) || this.styles.length >= most;
    const ready = this.content.file && (this.like || this.styles.every((card) => card.file));
    this.parts.paint.disabled = !ready || this.busy;
    this.content.showMasks();
    this.say("");
  }

  /** The styles and settings of a run that is there; only a content is asked for. */
  reuse(run) {
    this.parts.lead.textContent = `The styles and settings of “${run.name}”, on another picture.`;
    this.root.querySelector("h1").textContent = "Same settings, new content";
    const [card] = this.styles;
    card.showPicture(api.fileOf(run.id, "style/0"), run.styles > 1 ? `and ${run.styles - 1} more` : "as before", "");
    card.parts.mask.hidden = true;
    card.parts.file.disabled = true;
    this.root.querySelector(".essentials").hidden = this.root.querySelector(".more").hidden = true;
    this.parts.example.hidden = true;
    this.changed();
  }

  /** Files that were dropped or pasted: one goes to `card`, or where there is room; the first of two is the content. */
  async takeAll(files, card = null) {
    if (!files.length) return;
    if (files.length > 1 && (!card || card === this.content)) {
      await this.content.take(files[0]);
      files = files.slice(1);
      card = null;
    }
    for (const file of files) {
      const empty = [this.content, ...(this.like ? [] : this.styles)].find((each) => !each.file);
      const target = card ?? empty ?? (this.parts.add.hidden ? this.content : this.addStyle());
      await target.take(file);
      card = null;
    }
    announce(`${files.length === 1 ? "Picture" : "Pictures"} taken`);
  }

  listenToWindow() {
    this.listeners = new AbortController();
    const { signal } = this.listeners;
    window.addEventListener("dragover", (event) => event.preventDefault(), { signal });
    window.addEventListener("drop", (event) => {
      event.preventDefault();
      this.takeAll([...event.dataTransfer.files]);
    }, { signal });
    window.addEventListener("paste", (event) => this.takeAll([...(event.clipboardData?.files ?? [])]), { signal });
  }

  async paintMasks(card) {
    const isContent = card === this.content;
    const where = this.styles.map((_, index) => ({
      key: `style-${index}`, label: this.styles.length > 1 ? `Style ${index + 1} here` : "Style here", color: COLORS[index % COLORS.length],
    }));
    const layers = isContent ? [KEEP, ...(this.like ? [] : where)] : [{ key: "look", label: "Look here", color: COLORS[this.styles.indexOf(card) % COLORS.length] }];
    const title = isContent ? "Where to paint" : `Where to look in ${card.title.toLowerCase()}`;
    const masks = await paintMasks(title, card.bitmap, layers, card.masks);
    if (masks) card.masks = masks;
    card.showMasks();
    card.parts.mask.focus();
  }

  /** Everything as a form; masks become PNGs. */
  async filled() {
    const form = new FormData();
    form.append("content", this.content.file);
    form.append("name", this.content.file.name.replace(/\.[^.]+$/, "").replaceAll("_", " "));
    if (this.like) form.append("like", this.like.id);
    else await this.fillStyles(form);
    if (this.content.masks.has("keep")) form.append("content_mask", await this.content.masks.get("keep").png(), "mask.png");
    return form;
  }

  async fillStyles(form) {
    const settings = this.form.values();
    if (this.styles.length > 1) settings.style_weights = this.styles.map((card) => this.shareOf(card));
    form.append("settings", JSON.stringify(settings));
    for (const [index, card] of this.styles.entries()) {
      form.append("style", card.file);
      const [wanted, look] = [this.content.masks.get(`style-${index}`), card.masks.get("look")];
      if (wanted) form.append(`style_mask_${index}`, await wanted.png(), "mask.png");
      if (look) form.append(`style_region_${index}`, await look.png(), "region.png");
    }
  }

  shareOf(card) {
    const share = parsed(card.parts.weight.value);
    if (Number.isFinite(share) && share > 0) return share;
    card.parts.weight.focus();
    throw new Error(`${card.title}: its share must be a number above zero.`);
  }

  /** Sends what `asked` makes, and goes to the run that comes of it. */
  async begin(asked) {
    this.setBusy(true);
    try {
      const { id } = await asked();
      location.hash = `#/run/${id}`;
    } catch (error) {
      this.setBusy(false);
      this.say(error.message);
    }
  }

  setBusy(busy) {
    this.busy = busy;
    this.parts.example.disabled = busy;
    this.changed();
  }

  say(line) {
    this.parts.error.textContent = line;
  }

  close() {
    this.listeners.abort();
    for (const card of [this.content, ...this.styles]) card.bitmap?.close();
  }
}
