// The tab as an element: its own shadow root, so that no style gets in or out, and no `style` element, so that
// a strict content security policy holds.
import { mount, unmount } from "svelte";
import uplot from "uplot/dist/uPlot.min.css?inline";
import App from "./App.svelte";
import css from "./app.css?inline";

const sheet = new CSSStyleSheet();
sheet.replaceSync(uplot + css);

class EdgeflowApp extends HTMLElement {
  #app: object | undefined;

  connectedCallback(): void {
    if (this.#app) return;
    const root = this.shadowRoot ?? this.attachShadow({ mode: "open" });
    root.adoptedStyleSheets = [sheet];
    this.#app = mount(App, { target: root, props: { host: this } });
  }

  disconnectedCallback(): void {
    if (this.#app) void unmount(this.#app);
    this.#app = undefined;
    this.shadowRoot?.replaceChildren();
  }
}

if (!customElements.get("edgeflow-app")) customElements.define("edgeflow-app", EdgeflowApp);
