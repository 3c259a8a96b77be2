// Numbers with units, times as people say them.
const exact = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "medium" });
const STEPS: [number, string][] = [
  [86400, "d"],
  [3600, "h"],
  [60, "min"],
  [1, "s"],
];

export function moment(at: string | number): string {
  return exact.format(new Date(at));
}

export function span(seconds: number): string {
  const whole = Math.abs(seconds);
  for (const [size, unit] of STEPS) if (whole >= size) return `${Math.floor(whole / size)} ${unit}`;
  return "0 s";
}

export function ago(at: string | number, now: number): string {
  const seconds = (now - new Date(at).getTime()) / 1000;
  if (Math.abs(seconds) < 3) return "now";
  return seconds > 0 ? `${span(seconds)} ago` : `in ${span(seconds)}`;
}

export function number(value: number | null | undefined, digits = 3): string {
  if (value === null || value === undefined || Number.isNaN(value)) return "–";
  if (value !== 0 && (Math.abs(value) < 0.001 || Math.abs(value) >= 1e7)) return value.toExponential(1);
  return new Intl.NumberFormat(undefined, { maximumSignificantDigits: digits }).format(value);
}

export function whole(value: number): string {
  return new Intl.NumberFormat().format(value);
}

export function share(value: number | null | undefined): string {
  return value === null || value === undefined ? "–" : `${number(value * 100)} %`;
}

export function seconds(value: number | null | undefined): string {
  if (value === null || value === undefined) return "–";
  if (value < 1e-3) return `${number(value * 1e6)} µs`;
  if (value < 1) return `${number(value * 1e3)} ms`;
  return value < 120 ? `${number(value)} s` : span(value);
}

export function bytes(value: number | null | undefined): string {
  if (value === null || value === undefined) return "–";
  const units = ["B", "kB", "MB", "GB", "TB"];
  let rest = value;
  let unit = 0;
  while (rest >= 1000 && unit < units.length - 1) {
    rest /= 1000;
    unit += 1;
  }
  return `${number(rest)} ${units[unit]}`;
}

export function count(n: number, word: string, many = `${word}s`): string {
  return `${whole(n)} ${n === 1 ? word : many}`;
}

// `rolled_back` and `wrong_version` as words.
export function words(text: string): string {
  return text.replace(/_/g, " ");
}
