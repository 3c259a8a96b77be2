// The steps of an execution, sorted into what an operator sees.
import type { Part } from "../parts/Bar.svelte";

const WRONG = ["failed", "rejected", "rolled_back", "timed_out"];
const GONE = ["superseded", "cancelled"];

const sum = (counts: Record<string, number>, names: string[]) => names.reduce((all, name) => all + (counts[name] ?? 0), 0);

export function wrong(counts: Record<string, number>): number {
  return sum(counts, WRONG);
}

export function progress(counts: Record<string, number>, targets: number): Part[] {
  const done = counts["deployed"] ?? 0;
  const failed = wrong(counts);
  const gone = sum(counts, GONE);
  const begun = Object.values(counts).reduce((all, count) => all + count, 0);
  return [
    { name: "serve it", value: done, kind: "good" },
    { name: "failed", value: failed, kind: "bad" },
    { name: "on their way", value: Math.max(0, begun - done - failed - gone), kind: "busy" },
    { name: "replaced", value: gone, kind: "c0" },
    { name: "wait", value: Math.max(0, targets - begun), kind: "rest" },
  ].filter((part) => part.value > 0);
}
