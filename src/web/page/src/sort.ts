// The order of the tailed files. Pure.

import type { TailedFile } from "./api";

export type SortKey = "path" | "pod" | "progress" | "lag" | "state";

const STATES: Record<TailedFile["state"], number> = { error: 0, waiting: 1, rotated: 2, open: 3 };

type Compare = (one: TailedFile, other: TailedFile) => number;

const byPath: Compare = (one, other) => compareText(one.path, other.path);

/** Each starts with what a reader looks for first; "state" puts problems first, then what is most behind. */
const ORDERS: Record<SortKey, Compare> = {
  path: byPath,
  pod: (one, other) => compareText(labels(one), labels(other)) || byPath(one, other),
  progress: (one, other) => other.size - one.size || byPath(one, other),
  lag: (one, other) => other.lag_bytes - one.lag_bytes || byPath(one, other),
  state: (one, other) =>
    problem(one) - problem(other) || STATES[one.state] - STATES[other.state] || other.lag_bytes - one.lag_bytes || byPath(one, other),
};

/** A sorted copy. */
export function sortFiles(files: readonly TailedFile[], key: SortKey, descending: boolean): TailedFile[] {
  const order = ORDERS[key];
  return [...files].sort(descending ? (one, other) => order(other, one) : order);
}

const problem = (file: TailedFile): number => (file.state === "error" || file.last_error !== null ? 0 : 1);

/** Files without a pod come last. */
const labels = (file: TailedFile): string => (file.pod ? `${file.namespace}/${file.pod}/${file.container}` : "\uffff");

const compareText = (one: string, other: string): number => (one < other ? -1 : one > other ? 1 : 0);
