// How near a feature is to its thresholds: 1 is at the nearest of them.
import type { DriftView } from "../api/types";

export function excess(item: DriftView): number {
  let nearest = 0;
  for (const signal of item.signals) {
    if (signal.value === null || !signal.threshold) continue;
    // A ratio is as far from 1 when it is half as when it is double.
    const isRatio = signal.statistic.includes("ratio") && signal.threshold > 1;
    const near = isRatio
      ? Math.abs(Math.log(Math.max(signal.value, 1e-9))) / Math.log(signal.threshold)
      : Math.abs(signal.value / signal.threshold);
    nearest = Math.max(nearest, near);
  }
  return nearest;
}
