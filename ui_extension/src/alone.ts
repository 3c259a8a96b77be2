// The tab as a page of its own, at /edgeflow/: for MLflow versions whose navigation is not known, and for walls.
import page from "./page.css?inline";
import "./app";

const sheet = new CSSStyleSheet();
sheet.replaceSync(page);
document.adoptedStyleSheets = [sheet];
const chosen = localStorage.getItem("_mlflow_dark_mode_toggle_enabled");
const dark = chosen === null ? matchMedia("(prefers-color-scheme: dark)").matches : chosen === "true";
document.body.classList.toggle("dark-mode", dark);
const app = document.createElement("edgeflow-app");
app.dataset.alone = "";
document.body.append(app);
