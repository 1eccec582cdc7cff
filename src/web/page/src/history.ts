// The last minutes of samples, as the charts draw them. Pure.

import { SERIES, type HistoryPage, type SeriesName } from "./api";

type Values = (number | null)[];

/** Keeps `window` seconds of samples; where one is missing, a point without values makes the gap visible. */
export class History {
  step = 1;
  readonly times: number[] = [];
  private readonly values = new Map<SeriesName, Values>(SERIES.map((name) => [name, []]));

  constructor(readonly window: number) {}

  /** Unix seconds of the newest sample, 0 when there is none. */
  get last(): number {
    return this.times.at(-1) ?? 0;
  }

  series(name: SeriesName): Values {
    return this.values.get(name) ?? [];
  }

  /** Adds what is newer than what is here, then forgets what has left the window. */
  append(page: HistoryPage): void {
    this.step = page.step;
    page.times.forEach((time, index) => {
      if (time <= this.last) return;
      if (this.last && isGap(this.last, time, page.step)) this.push(this.last + page.step, () => null);
      this.push(time, (name) => page.series[name]?.[index] ?? null);
    });
    this.forgetBefore(this.last - this.window);
  }

  /** The agent's clock went back, or its samples are of another start: begin again. */
  clear(): void {
    this.times.length = 0;
    for (const values of this.values.values()) values.length = 0;
  }

  /** The newest known value of a series, unless it is older than `age` seconds at the time `now`. */
  latest(name: SeriesName, now: number, age: number): number | null {
    const values = this.series(name);
    for (let index = values.length - 1; index >= 0; index--) {
      if (now - (this.times[index] ?? 0) > age) return null;
      const value = values[index];
      if (value != null) return value;
    }
    return null;
  }

  private push(time: number, value: (name: SeriesName) => number | null): void {
    this.times.push(time);
    for (const [name, values] of this.values) values.push(value(name));
  }

  private forgetBefore(oldest: number): void {
    const keep = this.times.findIndex((time) => time >= oldest);
    if (keep <= 0) return;
    this.times.splice(0, keep);
    for (const values of this.values.values()) values.splice(0, keep);
  }
}

/** Timers jitter by a fraction of a step; beyond that a sample is missing. */
const isGap = (before: number, after: number, step: number): boolean => after - before > 1.75 * step;

/** Running sums, so that series can be drawn on top of each other; unknown where nothing is known. */
export function stack(series: readonly Values[]): Values[] {
  const sums: Values = (series[0] ?? []).map(() => null);
  return series.map((values) => {
    values.forEach((value, index) => {
      if (value !== null) sums[index] = (sums[index] ?? 0) + value;
    });
    return [...sums];
  });
}

/** Indices of values with unknown neighbours on both sides: a line cannot show them. */
export function lonely(values: readonly (number | null | undefined)[]): number[] {
  const indices: number[] = [];
  values.forEach((value, index) => {
    if (value != null && values[index - 1] == null && values[index + 1] == null) indices.push(index);
  });
  return indices;
}

/** The smallest of `steps` times a power of `base` that is not below `value`. */
export function niceTop(value: number, base: number, steps: readonly number[]): number {
  if (!(value > 0)) return steps[0] ?? 1;
  let power = base ** Math.floor(Math.log(value) / Math.log(base));
  for (;;) {
    for (const step of steps) {
      if (step * power >= value) return step * power;
    }
    power *= base;
  }
}
