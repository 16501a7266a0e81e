/** Wheel, drag, pinch and keys on an element, as zooming and panning. */

const STEP = 1.25;

/** Where the page is longer than the window, the wheel over a picture that is seen whole scrolls it on. */
function scrollsThePage(event, camera) {
  const isLonger = document.documentElement.scrollHeight > innerHeight + 1;
  return isLonger && camera.zoom <= 1 && !event.ctrlKey && !event.target.closest("dialog");
}

/**
 * camera() -> {camera, size, view}, or null where there is nothing to look at.
 * dragPans: whether one finger or the mouse pans; with false they are left to the caller, and two fingers still zoom.
 */
export function zoomAndPan(element, camera, { dragPans = true, keysPan = true } = {}) {
  const fingers = new Map();
  let spread = null;

  const at = (event) => {
    const box = element.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  };
  const middle = () => {
    const [a, b] = [...fingers.values()];
    return { point: [(a[0] + b[0]) / 2, (a[1] + b[1]) / 2], distance: Math.hypot(a[0] - b[0], a[1] - b[1]) };
  };

  element.addEventListener("wheel", (event) => {
    const seen = camera();
    if (!seen || scrollsThePage(event, seen.camera)) return;
    event.preventDefault();
    const pixels = event.deltaMode === 1 ? event.deltaY * 20 : event.deltaY;
    seen.camera.zoomAt(Math.exp(-pixels / (event.ctrlKey ? 120 : 400)), at(event), seen.size, seen.view);
  }, { passive: false });

  element.addEventListener("pointerdown", (event) => {
    if (event.button !== 0 && event.button !== 1) return;
    fingers.set(event.pointerId, at(event));
    if (dragPans || event.button === 1) element.setPointerCapture(event.pointerId);
    spread = fingers.size === 2 ? middle() : null;
  });
  element.addEventListener("pointermove", (event) => {
    const seen = camera();
    const before = fingers.get(event.pointerId);
    if (!seen || !before) return;
    const now = at(event);
    fingers.set(event.pointerId, now);
    if (fingers.size === 2 && spread) {
      const { point, distance } = middle();
      seen.camera.pan(point[0] - spread.point[0], point[1] - spread.point[1], seen.size, seen.view);
      seen.camera.zoomAt(distance / Math.max(1, spread.distance), point, seen.size, seen.view);
      spread = { point, distance };
    } else if (fingers.size === 1 && (dragPans || event.buttons === 4)) {
      seen.camera.pan(now[0] - before[0], now[1] - before[1], seen.size, seen.view);
    }
  });
  for (const name of ["pointerup", "pointercancel", "lostpointercapture"]) {
    element.addEventListener(name, (event) => {
      fingers.delete(event.pointerId);
      spread = null;
    });
  }

  element.addEventListener("keydown", (event) => {
    const seen = camera();
    if (!seen || event.ctrlKey || event.metaKey || event.altKey) return;
    const half = [seen.view[0] / 2, seen.view[1] / 2];
    const moves = { ArrowLeft: [1, 0], ArrowRight: [-1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] };
    if (event.key === "+" || event.key === "=") seen.camera.zoomAt(STEP, half, seen.size, seen.view);
    else if (event.key === "-") seen.camera.zoomAt(1 / STEP, half, seen.size, seen.view);
    else if (event.key === "0") seen.camera.fit();
    else if (event.key === "1") seen.camera.full(seen.size, seen.view);
    else if (keysPan && moves[event.key]) {
      const [right, down] = moves[event.key];
      seen.camera.pan(right * half[0] / 4, down * half[1] / 4, seen.size, seen.view);
    } else return;
    event.preventDefault();
  });
}
