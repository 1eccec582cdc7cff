// Sentences for when there is nothing to show: what that means, and what to do.

import type { LogFilter, TailedFile } from "../api";
import { counted, list } from "../format";

export interface Nothing extends LogFilter {
  /** How far back was looked, as shown. */
  range: string;
  files: TailedFile[];
  sources: string[];
}

/** Why the list of lines is empty. */
export function emptyText(nothing: Nothing): string {
  const { query, range, files, sources } = nothing;
  const labels = [nothing.namespace, nothing.pod, nothing.container].filter((label) => label !== "");
  const of = labels.length > 0 ? ` of ${labels.join(" / ")}` : "";
  if (query) return `No line${of} within ${range} matches ${query}. Look further back, or ask for less.`;
  if (of) return `No line${of} within ${range}. Look further back, or remove a filter.`;
  if (files.length === 0) return noFiles(sources);
  return `No lines within ${range} from the ${counted(files.length, "file")} being read. New ones appear here as they are written.`;
}

/** Nothing is tailed. */
export function noFiles(sources: string[]): string {
  if (sources.length === 0) return "No log files are looked for: set logs.sources in nodewarden's configuration.";
  return `No log files found: nodewarden looks at ${list(sources)}. Set logs.sources in its configuration to look elsewhere.`;
}
