// Joins the stored lines with those of the live tail, which overlap. Pure.

import type { LogLine } from "./api";

/** Knows the lines fetched from the store, and tells which lines of the tail are new. */
export class Overlap {
  private readonly seen = new Map<string, number>();

  constructor(fetched: readonly LogLine[]) {
    for (const line of fetched) this.seen.set(key(line), (this.seen.get(key(line)) ?? 0) + 1);
  }

  /** False once for each fetched line that the tail says again; equal lines are counted, not merged. */
  isNew(line: LogLine): boolean {
    const times = this.seen.get(key(line)) ?? 0;
    if (times > 0) this.seen.set(key(line), times - 1);
    return times === 0;
  }
}

const key = (line: LogLine): string =>
  [line.time, line.stream, line.labels.namespace, line.labels.pod, line.labels.container, line.labels.file, line.text].join("\0");
