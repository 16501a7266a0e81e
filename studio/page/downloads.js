/** What can be taken away: the picture in its formats, recipe, report, animation. */

import * as api from "./api.js";
import { make } from "./dom.js";

const FORMATS = [["PNG", "8 bits", "png"], ["PNG", "16 bits", "png16"], ["TIFF", "16 bits", "tiff"], ["JPEG", "to share", "jpeg"]];
const FILES = [["Recipe", "to repeat it", "recipe", "picture"], ["Report", "one page", "report", "report"], ["Animation", "the way", "animation", "animation"]];

export class Downloads {
  constructor(id) {
    this.links = [
      ...FORMATS.map(([label, detail, format]) => ({ link: linkTo(label, detail, api.pictureOf(id, format)), needs: "picture" })),
      ...FILES.map(([label, detail, name, needs]) => ({ link: linkTo(label, detail, api.fileOf(id, name)), needs })),
    ];
    this.root = make("div", { class: "downloads" }, ...this.links.map(({ link }) => link));
    this.show({});
  }

  /** has: which files there are, as the run says. What is not there cannot be reached, by mouse or by keyboard. */
  show(has) {
    for (const { link, needs } of this.links) {
      link.setAttribute("aria-disabled", String(!has[needs]));
      link.tabIndex = has[needs] ? 0 : -1;
    }
  }
}

function linkTo(label, detail, href) {
  return make("a", { class: "button", href, download: true }, label, make("small", {}, detail));
}
