// Where we are: the part of the address after `#/edgeflow`. It is the same inside MLflow and alone.
export const HOME = "#/edgeflow";

export interface Place {
  parts: string[];
  query: URLSearchParams;
}

function read(): Place {
  const hash = location.hash.startsWith(HOME) ? location.hash.slice(HOME.length) : "";
  const [path = "", query = ""] = hash.split("?", 2);
  const parts = path
    .split("/")
    .filter(Boolean)
    .map((part) => {
      try {
        return decodeURIComponent(part);
      } catch {
        return part;
      }
    });
  return { parts, query: new URLSearchParams(query) };
}

export const route = $state<{ now: Place }>({ now: read() });

export function follow(): () => void {
  const look = () => {
    if (!location.hash || location.hash.startsWith(HOME)) route.now = read();
  };
  look();
  addEventListener("hashchange", look);
  addEventListener("popstate", look);
  return () => {
    removeEventListener("hashchange", look);
    removeEventListener("popstate", look);
  };
}

export function to(parts: string[], query: Record<string, string | undefined> = {}): string {
  const words = new URLSearchParams();
  for (const [name, value] of Object.entries(query)) if (value) words.set(name, value);
  const path = [HOME, ...parts.map(encodeURIComponent)].join("/");
  return words.size ? `${path}?${words}` : path;
}

export function go(parts: string[], query: Record<string, string | undefined> = {}): void {
  location.hash = to(parts, query);
}

// Another view of the same page: no new entry in the history for each letter of a filter.
export function refine(query: Record<string, string | undefined>): void {
  history.replaceState(history.state, "", to(route.now.parts, { ...Object.fromEntries(route.now.query), ...query }));
  route.now = read();
}
