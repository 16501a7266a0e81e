/** Starts the studio: reads the address, shows the page that it names, and keeps the list and the connection's notice true. */

import * as api from "./api.js";
import { Comparison } from "./compare.js";
import { byId, make } from "./dom.js";
import { RunList } from "./list.js";
import { Live } from "./live.js";
import { NewPainting } from "./new.js";
import { Painting } from "./run.js";

const list = new RunList();
const main = byId("main");
let about = null;
let page = null;
let shown = 0;

/** One calm line while any socket is lost; a short hiccup is not worth one. */
const connection = {
  lostOnes: new Set(),
  lost(name) {
    this.lostOnes.add(name);
    this.timer ??= setTimeout(() => { byId("connection").textContent = this.lostOnes.size ? "The studio is away; it is looked for" : ""; }, 900);
  },
  open(name) {
    this.lostOnes.delete(name);
    if (this.lostOnes.size) return;
    clearTimeout(this.timer);
    this.timer = null;
    byId("connection").textContent = "";
  },
  forget(names) {
    for (const name of names) this.open(name);
  },
};

/** "#/run/ID" -> ["run", "ID"]; what is no such address is a new painting. */
function route() {
  const [kind, rest] = location.hash.replace(/^#\/?/, "").split("/");
  return ["run", "compare", "new"].includes(kind) ? [kind, rest ? decodeURIComponent(rest) : null] : ["new", null];
}

async function show() {
  const turn = ++shown;
  const [kind, rest] = route();
  closeRail();
  page?.close();
  page = null;
  connection.forget([...connection.lostOnes].filter((name) => name !== "list"));
  list.setCurrent(kind === "run" ? rest : null);
  const like = kind === "new" && rest ? await api.run(rest).catch(() => null) : null;
  if (turn !== shown) return;
  if (kind === "run" && rest) page = new Painting(about, rest, connection);
  else if (kind === "compare" && rest) page = new Comparison(rest.split(",").slice(0, 4), connection);
  else page = new NewPainting(about, like);
  main.replaceChildren(page.root);
  scrollTo(0, 0);
  const heading = main.querySelector("h1");
  document.title = kind === "new" ? "nstgpu studio" : `${heading.textContent || "Painting"} · nstgpu studio`;
}

function openRail() {
  byId("rail").classList.add("open");
  byId("scrim").hidden = false;
  byId("rail-toggle").setAttribute("aria-expanded", "true");
  byId("rail").querySelector("a, button:not([hidden])")?.focus();
}

function closeRail() {
  byId("rail").classList.remove("open");
  byId("scrim").hidden = true;
  byId("rail-toggle").setAttribute("aria-expanded", "false");
}

function switchTheme() {
  const root = document.documentElement;
  const light = getComputedStyle(root).colorScheme.includes("light");
  root.dataset.theme = light ? "dark" : "light";
  try {
    localStorage.setItem("nstgpu-theme", root.dataset.theme);
  } catch {
    // It lasts as long as the page does.
  }
  document.dispatchEvent(new Event("themechange"));
}

/** Waits for the server, as long as it takes: the page may be there before it is. */
async function arrived() {
  for (let wait = 500; ; wait = Math.min(4000, wait * 1.5)) {
    try {
      return await api.about();
    } catch (error) {
      if (error.status === 401 || error.status === 403) {
        main.replaceChildren(make("div", { class: "new" }, make("h1", {}, "The studio wants its token"), make("p", { class: "lead" }, error.message)));
      }
      connection.lost("list");
      await new Promise((resolve) => setTimeout(resolve, wait));
    }
  }
}

async function refreshList() {
  const runs = await api.runs().catch(() => null);
  if (runs) list.update(runs);
}

byId("theme").onclick = switchTheme;
byId("rail-toggle").onclick = () => (byId("rail").classList.contains("open") ? closeRail() : openRail());
byId("scrim").onclick = closeRail;
byId("skip").addEventListener("click", (event) => {
  event.preventDefault();
  main.focus();
});
document.addEventListener("keydown", (event) => {
  if (event.key !== "Escape" || !byId("rail").classList.contains("open")) return;
  closeRail();
  byId("rail-toggle").focus();
});

about = await arrived();
await refreshList();
new Live(null, {
  event(event) {
    if (event.event === "list") list.update(event.runs);
    if (event.event === "state") list.updateOne(event.run);
  },
  open() {
    connection.open("list");
    refreshList();
  },
  lost: () => connection.lost("list"),
});
window.addEventListener("hashchange", show);
await show();
