/** A card that takes one picture, dropped, pasted or chosen, and shows it. */

import { clone } from "./dom.js";

export class Card extends EventTarget {
  /** Dispatches "picture" when one was taken, "refused" with the reason as its detail, and "mask", "remove", "share". */
  constructor(title, prompt) {
    super();
    [this.root, this.parts] = clone("t-card");
    this.file = null;
    this.bitmap = null;
    this.masks = new Map();
    const { parts } = this;
    parts.prompt.textContent = prompt;
    this.rename(title);
    parts.file.addEventListener("change", () => parts.file.files[0] && this.take(parts.file.files[0]));
    parts.drop.addEventListener("dragover", (event) => { event.preventDefault(); parts.drop.classList.add("over"); });
    parts.drop.addEventListener("dragleave", () => parts.drop.classList.remove("over"));
    parts.drop.addEventListener("drop", (event) => {
      event.preventDefault();
      event.stopPropagation();
      parts.drop.classList.remove("over");
      this.dispatchEvent(new CustomEvent("dropped", { detail: [...event.dataTransfer.files] }));
    });
    parts.mask.onclick = () => this.dispatchEvent(new Event("mask"));
    parts.remove.onclick = () => this.dispatchEvent(new Event("remove"));
  }

  rename(title) {
    this.title = title;
    this.parts.title.textContent = title;
    this.root.setAttribute("aria-label", title);
    this.parts.file.setAttribute("aria-label", `${title}: choose a picture`);
    this.parts.remove.setAttribute("aria-label", `Remove ${title}`);
  }

  /** Takes a file if the browser can read it; what the server makes of it is the server's to say. */
  async take(file) {
    const bitmap = await createImageBitmap(file).catch(() => null);
    if (!bitmap && !file.type.startsWith("image/")) {
      this.dispatchEvent(new CustomEvent("refused", { detail: `“${file.name}” is not a picture; choose a JPEG, PNG, WebP or TIFF.` }));
      return;
    }
    this.file = file;
    this.bitmap?.close();
    this.bitmap = bitmap;
    this.masks = new Map();
    URL.revokeObjectURL(this.address);
    this.address = URL.createObjectURL(file);
    this.showPicture(bitmap ? this.address : null, file.name, bitmap ? `${bitmap.width} × ${bitmap.height}` : "no preview");
    this.parts.mask.hidden = !bitmap;
    this.showMasks();
    this.dispatchEvent(new Event("picture"));
  }

  showPicture(address, name, detail) {
    const { parts } = this;
    parts.foot.hidden = false;
    parts.invite.hidden = Boolean(address);
    parts.picture.hidden = !address;
    if (address) parts.picture.src = address;
    parts.drop.classList.toggle("filled", Boolean(address));
    parts.name.textContent = name;
    parts.pixels.textContent = detail;
  }

  showMasks() {
    this.parts["mask-label"].textContent = this.masks.size ? "Masked" : "Mask";
  }
}
