// Runs in MLflow's own page: keeps one entry in its navigation and shows our pages where MLflow shows its own.
// MLflow's page must never break because of us: nothing here throws outwards, and nothing of MLflow's is removed.
import { note } from "./version_note";

const HOME = "#/edgeflow";
const SHOWN = "edgeflow-shown";
const PATIENCE_MS = 8000;
const ICON = "M8 1 14.5 4.6v6.8L8 15 1.5 11.4V4.6zM8 8l6.5-3.4M8 8v7M8 8 1.5 4.6";
const began = Date.now();

const style = new CSSStyleSheet();
style.replaceSync(`
main.${SHOWN} > :not(edgeflow-app) { display: none !important; }
edgeflow-app { display: block; flex: 1 1 auto; width: 100%; height: 100%; min-width: 0; overflow: auto; }
#edgeflow-nav svg { flex: none; }
#edgeflow-nav.edgeflow-plain { display: flex; align-items: center; gap: 8px; padding: 4px 8px; border-radius: 4px;
  color: inherit; text-decoration: none; font-size: 13px; line-height: 20px; }
#edgeflow-nav.edgeflow-plain:hover, #edgeflow-nav.edgeflow-plain[aria-current] { background: rgba(128, 128, 128, .16); }
#edgeflow-nav.edgeflow-narrow { justify-content: center; }
#edgeflow-nav.edgeflow-fallback { position: fixed; left: 12px; bottom: 12px; z-index: 1000; padding: 6px 14px;
  border-radius: 16px; background: #0e538b; color: #fff; font: 13px/20px system-ui, sans-serif;
  text-decoration: none; box-shadow: 0 1px 4px rgba(0, 0, 0, .3); }
`);
document.adoptedStyleSheets = [...document.adoptedStyleSheets, style];

const isOurs = (): boolean => location.hash === HOME || /^#\/edgeflow[/?]/.test(location.hash);

function icon(): SVGSVGElement {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  for (const [name, value] of Object.entries({
    width: "16", height: "16", viewBox: "0 0 16 16", fill: "none", stroke: "currentColor",
    "stroke-width": "1.4", "stroke-linejoin": "round", "aria-hidden": "true",
  }))
    svg.setAttribute(name, value);
  const path = document.createElementNS("http://www.w3.org/2000/svg", "path");
  path.setAttribute("d", ICON);
  svg.append(path);
  return svg;
}

function link(): HTMLAnchorElement {
  const made = document.createElement("a");
  made.id = "edgeflow-nav";
  made.href = HOME;
  const text = document.createElement("span");
  text.textContent = "Edgeflow";
  made.append(icon(), text);
  return made;
}

// A link of MLflow's own that is not the one of the page that is shown: it looks as ours should.
function sibling(list: Element): HTMLAnchorElement | undefined {
  const all = [...list.querySelectorAll<HTMLAnchorElement>("li a[href]")];
  return all.filter((item) => item.id !== "edgeflow-nav" && !item.hasAttribute("aria-current") && item.className).at(-1);
}

function keepEntry(): void {
  const list = document.querySelector("#root aside nav ul");
  let entry = document.querySelector<HTMLAnchorElement>("#edgeflow-nav");
  if (!list) {
    const isThere = document.querySelector("#root")?.childElementCount;
    if (isThere && Date.now() - began > PATIENCE_MS && !entry?.classList.contains("edgeflow-fallback")) {
      entry?.parentElement?.matches("li") ? entry.parentElement.remove() : entry?.remove();
      const fallback = link();
      fallback.className = "edgeflow-fallback";
      // Where its navigation is not known, the frame may not be either.
      if (!document.querySelector("#root main")) fallback.href = new URL("../", import.meta.url).href;
      document.body.append(fallback);
    }
    return;
  }
  if (entry?.classList.contains("edgeflow-fallback")) {
    entry.remove();
    entry = null;
  }
  if (!entry) {
    entry = link();
    const item = document.createElement("li");
    item.append(entry);
    list.append(item);
  }
  const item = entry.parentElement as HTMLElement;
  if (item.parentElement !== list || item !== list.lastElementChild) list.append(item);
  const model = sibling(list);
  const parts = ["edgeflow-entry"];
  parts.push(model ? model.className : "edgeflow-plain");
  const aside = list.closest("aside");
  const isNarrow = !!aside && aside.getBoundingClientRect().width < 100;
  if (isNarrow) parts.push("edgeflow-narrow");
  const name = parts.join(" ");
  if (entry.className !== name) entry.className = name;
  const text = entry.querySelector("span") as HTMLElement;
  if (text.hidden !== isNarrow) text.hidden = isNarrow;
  if (isNarrow && entry.title !== "Edgeflow") entry.title = "Edgeflow";
  if (isOurs() !== (entry.getAttribute("aria-current") === "page"))
    isOurs() ? entry.setAttribute("aria-current", "page") : entry.removeAttribute("aria-current");
}

let isLoading = false;
let titleBefore = "";

function showPage(): void {
  const main = document.querySelector<HTMLElement>("#root main");
  const shown = document.querySelector("edgeflow-app");
  if (!isOurs()) {
    shown?.remove();
    document.querySelector(`main.${SHOWN}`)?.classList.remove(SHOWN);
    if (titleBefore) document.title = titleBefore;
    titleBefore = "";
    return;
  }
  if (!main) return;
  if (!main.classList.contains(SHOWN)) main.classList.add(SHOWN);
  if (!customElements.get("edgeflow-app") && !isLoading) {
    isLoading = true;
    import("./app").catch((error: unknown) => {
      console.error("Edgeflow could not be loaded", error);
      isLoading = false;
    });
  }
  if (shown?.parentElement !== main) {
    shown?.remove();
    main.append(document.createElement("edgeflow-app"));
  }
  if (!document.title.startsWith("Edgeflow")) {
    titleBefore ||= document.title;
    document.title = "Edgeflow";
  }
}

let isDue = false;
function look(): void {
  if (isDue) return;
  isDue = true;
  requestAnimationFrame(() => {
    isDue = false;
    for (const part of [keepEntry, showPage, note]) {
      try {
        part();
      } catch (error) {
        console.error("Edgeflow:", error);
      }
    }
  });
}

new MutationObserver(look).observe(document.body, {
  childList: true,
  subtree: true,
  attributes: true,
  attributeFilter: ["aria-current"],
});
for (const event of ["hashchange", "popstate", "resize"]) addEventListener(event, look);
setTimeout(look, PATIENCE_MS + 100);
look();
