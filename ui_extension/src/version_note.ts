// On MLflow's own page of a model version: on how many devices it runs, and a way there.
import { get, path } from "./api/client";
import type { ModelVersionView } from "./api/types";

const PAGE = /^#\/models\/([^/?]+)\/versions\/(\d+)/;
const ID = "edgeflow-note";
let asked = "";
let found: { devices: number; href: string } | undefined;

const style = new CSSStyleSheet();
style.replaceSync(`
#${ID} { margin: 8px 16px 0; padding: 6px 12px; border: 1px solid rgba(128, 128, 128, .35); border-radius: 4px;
  font-size: 13px; line-height: 20px; flex: none; }
#${ID} a { color: #0e538b; text-decoration: none; margin-left: 4px; }
#${ID} a:hover { text-decoration: underline; }
body.dark-mode #${ID} a { color: #8acaff; }
`);
document.adoptedStyleSheets = [...document.adoptedStyleSheets, style];

export function note(): void {
  const place = PAGE.exec(location.hash);
  const shown = document.getElementById(ID);
  if (!place) {
    shown?.remove();
    asked = "";
    found = undefined;
    return;
  }
  if (asked !== place[0]) {
    shown?.remove();
    void look(place[0], decodeURIComponent(place[1] ?? ""), place[2] ?? "");
    return;
  }
  if (found && !shown) place_it(found);
}

async function look(page: string, model: string, version: string): Promise<void> {
  asked = page;
  found = undefined;
  try {
    const view = await get<ModelVersionView>(path`/models/${model}/versions/${version}`);
    if (asked !== page) return;
    const words = new URLSearchParams({ model, version });
    found = {
      devices: view.runs_on.filter((item) => item.actual).length,
      href: `#/edgeflow/fleet?${words}`,
    };
    place_it(found);
  } catch {
    // Whoever may not ask, or a server that is away: MLflow's page says what there is to say.
  }
}

function place_it(known: { devices: number; href: string }): void {
  const main = document.querySelector("#root main");
  if (!main?.firstElementChild || document.getElementById(ID)) return;
  const box = document.createElement("div");
  box.id = ID;
  const count = known.devices === 1 ? "1 device" : `${known.devices} devices`;
  box.textContent = known.devices ? `Runs on ${count}` : "Runs on no device";
  const link = document.createElement("a");
  link.href = known.devices ? known.href : known.href.replace("/fleet?", "/rollout?");
  link.textContent = known.devices ? "→ show" : "→ deploy";
  box.append(link);
  main.prepend(box);
}
