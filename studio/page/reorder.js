/** Reordering the items of a list by dragging a grip, with mouse, finger or pen, or by Alt and the arrow keys. */

/**
 * Calls moved(item, place) once an item lies elsewhere, its place counted among those that can be moved.
 * movable, grip: selectors of the items, and of what they are dragged by; the rest stays where it is.
 */
export function reorderable(list, movable, grip, moved) {
  let dragged = null;
  const items = () => [...list.children].filter((item) => item.matches(movable));
  const placeOf = (item) => items().indexOf(item);

  list.addEventListener("pointerdown", (event) => {
    const handle = event.target.closest(grip);
    if (!handle || event.button !== 0) return;
    event.preventDefault();
    const item = handle.closest(movable);
    if (!item) return;
    dragged = { item, startY: event.clientY, from: placeOf(item), end: items().at(-1).nextElementSibling };
    item.classList.add("dragged");
    list.setPointerCapture(event.pointerId);
  });
  list.addEventListener("pointermove", (event) => {
    if (!dragged) return;
    const others = items().filter((each) => each !== dragged.item);
    const next = others.find((each) => event.clientY < each.getBoundingClientRect().top + each.offsetHeight / 2) ?? dragged.end;
    if (next !== dragged.item.nextElementSibling) {
      const before = dragged.item.offsetTop;
      list.insertBefore(dragged.item, next);
      dragged.startY += dragged.item.offsetTop - before;
    }
    dragged.item.style.transform = `translateY(${event.clientY - dragged.startY}px)`;
  });
  const drop = () => {
    if (!dragged) return;
    const { item, from } = dragged;
    dragged = null;
    item.classList.remove("dragged");
    item.style.transform = "";
    if (placeOf(item) !== from) moved(item, placeOf(item));
  };
  for (const name of ["pointerup", "pointercancel"]) list.addEventListener(name, drop);

  list.addEventListener("keydown", (event) => {
    const step = { ArrowUp: -1, ArrowDown: 1 }[event.key];
    const item = event.target.closest("li");
    if (!step || !item) return;
    if (!event.altKey) {
      const near = step < 0 ? item.previousElementSibling : item.nextElementSibling;
      near?.querySelector("a")?.focus();
      if (near) event.preventDefault();
      return;
    }
    event.preventDefault();
    const place = placeOf(item) + step;
    if (placeOf(item) < 0 || place < 0 || place >= items().length) return;
    const focused = document.activeElement;
    list.insertBefore(item, step < 0 ? items()[place] : items()[place].nextElementSibling);
    focused.focus();
    moved(item, place);
  });

  return { isDragging: () => dragged !== null };
}
