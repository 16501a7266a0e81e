/** Reordering the items of a list by dragging a grip, with mouse, finger or pen, or by Alt and the arrow keys. */

/** Calls moved(item, index) once an item lies elsewhere; `grip` is the selector of what is dragged by. */
export function reorderable(list, grip, moved) {
  let dragged = null;

  list.addEventListener("pointerdown", (event) => {
    const handle = event.target.closest(grip);
    if (!handle || event.button !== 0) return;
    event.preventDefault();
    const item = handle.closest("li");
    dragged = { item, startY: event.clientY, from: indexOf(item) };
    item.classList.add("dragged");
    list.setPointerCapture(event.pointerId);
  });
  list.addEventListener("pointermove", (event) => {
    if (!dragged) return;
    const others = [...list.children].filter((each) => each !== dragged.item);
    const next = others.find((each) => event.clientY < each.getBoundingClientRect().top + each.offsetHeight / 2) ?? null;
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
    if (indexOf(item) !== from) moved(item, indexOf(item));
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
    const index = indexOf(item) + step;
    if (index < 0 || index >= list.children.length) return;
    const focused = document.activeElement;
    list.insertBefore(item, step < 0 ? item.previousElementSibling : item.nextElementSibling.nextElementSibling);
    focused.focus();
    moved(item, index);
  });

  return { isDragging: () => dragged !== null };
}

function indexOf(item) {
  return [...item.parentElement.children].indexOf(item);
}
