/** The row of buttons beneath a viewer: zoom, fit, a pixel for a pixel, before and after. */

import { clone } from "./dom.js";

export function viewTools(viewer) {
  const [root, parts] = clone("t-tools");
  const zoom = (factor) => {
    const seen = viewer.seen();
    if (seen) seen.camera.zoomAt(factor, [seen.view[0] / 2, seen.view[1] / 2], seen.size, seen.view);
  };
  const split = () => {
    viewer.compareAt(viewer.split === null ? 0.5 : null);
    parts.split.setAttribute("aria-pressed", String(viewer.split !== null));
  };
  parts.out.onclick = () => zoom(1 / 1.25);
  parts.in.onclick = () => zoom(1.25);
  parts.fit.onclick = () => viewer.camera.fit();
  parts.full.onclick = () => viewer.size && viewer.camera.full(viewer.size, viewer.view());
  parts.split.onclick = split;
  viewer.root.addEventListener("painted", () => { parts.percent.textContent = `${viewer.percent()}%`; });
  viewer.canvas.addEventListener("keydown", (event) => {
    if (event.key.toLowerCase() === "b" && !event.ctrlKey && !event.metaKey) split();
  });
  return root;
}
