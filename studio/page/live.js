/** The websocket of a run, or of the list: opens again by itself, and asks for a frame only when the last one is shown. */

const FIRST_WAIT = 400;
const LONGEST_WAIT = 5000;

export class Live {
  /**
   * handlers: event(object), frame(bitmap, event), open(), lost(). `run` is an id, or null for the list.
   * A frame is acknowledged once `frame` has returned, so that a slow page is sent fewer.
   */
  constructor(run, handlers) {
    this.handlers = handlers;
    this.address = `${location.protocol === "https:" ? "wss" : "ws"}://${location.host}/api/live`;
    if (run) this.address += `?run=${encodeURIComponent(run)}`;
    this.wait = FIRST_WAIT;
    this.closed = false;
    this.frameEvent = null;
    this.hurry = () => this.retry();
    window.addEventListener("online", this.hurry);
    document.addEventListener("visibilitychange", this.hurry);
    this.open();
  }

  open() {
    this.timer = null;
    const socket = new WebSocket(this.address);
    socket.binaryType = "blob";
    socket.onopen = () => {
      this.wait = FIRST_WAIT;
      this.handlers.open?.();
    };
    socket.onmessage = (message) => this.receive(socket, message.data);
    socket.onclose = () => {
      if (this.closed) return;
      this.handlers.lost?.();
      this.timer = setTimeout(() => this.open(), this.wait * (0.8 + 0.4 * Math.random()));
      this.wait = Math.min(LONGEST_WAIT, this.wait * 1.7);
    };
    this.socket = socket;
  }

  async receive(socket, data) {
    if (typeof data === "string") {
      for (const event of [JSON.parse(data)].flat()) {
        if (event.event === "frame") this.frameEvent = event;
        this.handlers.event?.(event);
      }
      return;
    }
    const event = this.frameEvent;
    const bitmap = await createImageBitmap(data).catch(() => null);
    if (bitmap && !this.closed) await this.handlers.frame?.(bitmap, event);
    if (socket.readyState === WebSocket.OPEN) socket.send(JSON.stringify({ seen: event?.iteration ?? 0 }));
  }

  /** Tries now instead of at the end of the wait. */
  retry() {
    if (this.timer === null || this.closed || document.hidden) return;
    clearTimeout(this.timer);
    this.wait = FIRST_WAIT;
    this.open();
  }

  close() {
    this.closed = true;
    clearTimeout(this.timer);
    window.removeEventListener("online", this.hurry);
    document.removeEventListener("visibilitychange", this.hurry);
    this.socket.close();
  }
}
