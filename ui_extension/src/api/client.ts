// Calls of /api/v1 of the server that this script came from, whatever stands before its path.
import type { Error as Refusal } from "./types";

// The bundle lies at <prefix>/edgeflow/static/.
const ROOT = new URL("../../", import.meta.url);
export const MLFLOW = ROOT.pathname;
const TIMEOUT_MS = 30_000;

export class ApiError extends Error {
  constructor(
    readonly status: number,
    message: string,
  ) {
    super(message);
  }
}

export type Query = Record<string, string | number | boolean | undefined>;

export function path(strings: TemplateStringsArray, ...names: string[]): string {
  return strings.reduce((text, part, index) => text + encodeURIComponent(names[index - 1] ?? "") + part);
}

function headers(): Record<string, string> {
  const workspace =
    new URLSearchParams(location.search).get("workspace") ?? localStorage.getItem("mlflow.activeWorkspace");
  return workspace ? { "X-MLFLOW-WORKSPACE": workspace.replace(/^"|"$/g, "") } : {};
}

async function call<T>(method: string, place: string, query: Query, body?: unknown): Promise<T> {
  const url = new URL(`api/v1${place}`, ROOT);
  for (const [name, value] of Object.entries(query))
    if (value !== undefined && value !== "") url.searchParams.set(name, String(value));
  let answer: Response;
  try {
    answer = await fetch(url, {
      method,
      headers: body === undefined ? headers() : { ...headers(), "Content-Type": "application/json" },
      body: body === undefined ? undefined : JSON.stringify(body),
      signal: AbortSignal.timeout(TIMEOUT_MS),
    });
  } catch {
    throw new ApiError(0, "the server does not answer");
  }
  const text = await answer.text();
  let read: unknown;
  try {
    read = JSON.parse(text);
  } catch {
    throw new ApiError(answer.status, `the server answered ${answer.status} without a word that can be read`);
  }
  if (!answer.ok) throw new ApiError(answer.status, (read as Refusal).message ?? `refused (${answer.status})`);
  return read as T;
}

export const get = <T>(place: string, query: Query = {}): Promise<T> => call<T>("GET", place, query);
export const send = <T>(method: "POST" | "PUT" | "PATCH" | "DELETE", place: string, body: unknown = {}): Promise<T> =>
  call<T>(method, place, {}, body);
