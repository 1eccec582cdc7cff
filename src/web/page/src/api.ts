// The agent's admin API: types of its answers, and the only place that fetches.

export interface Status {
  version: string;
  node: string;
  os: string;
  kernel: string;
  cpus: number;
  memory_total_bytes: number;
  boot_time_seconds: number;
  /** The agent's clock, unix seconds. */
  now: number;
  agent: { uptime_seconds: number; rss_bytes: number; cpu_seconds: number };
  sink: Sink;
  store: Store | null;
  ledger: Ledger;
  /** Where the agent looks for logs. */
  sources: string[];
}

export interface Sink {
  kind: "store" | "elasticsearch";
  target: string;
  state: "ok" | "holding";
  /** Why lines are held, as a sentence. */
  reason: string | null;
}

export interface Store {
  bytes: number;
  max_bytes: number;
  /** Age of the oldest line kept, seconds. */
  oldest_seconds: number | null;
}

export interface Ledger {
  read_lines: number;
  read_bytes: number;
  acked_lines: number;
  acked_bytes: number;
  in_flight_lines: number;
  dead_letter_lines: number;
  dropped_lines: number;
  /** As far as they could be counted. */
  lost_lines: number;
  lost_bytes: number;
}

/** The ledger of one container; the names are empty for what no container writes. */
export interface ContainerLedger extends Ledger {
  namespace: string;
  pod: string;
  container: string;
}

export interface Files {
  files: TailedFile[];
  containers: ContainerLedger[];
}

export const SERIES = [
  "cpu_user",
  "cpu_system",
  "cpu_iowait",
  "cpu_steal",
  "cpu_other",
  "memory_used",
  "memory_cached",
  "memory_available",
  "disk_read",
  "disk_write",
  "net_receive",
  "net_transmit",
  "load1",
] as const;
export type SeriesName = (typeof SERIES)[number];

export interface HistoryPage {
  /** Seconds between two samples. */
  step: number;
  /** Unix seconds, growing. */
  times: number[];
  /** Fractions 0..1 (cpu), bytes (memory), bytes per second (disk, net), plain (load1); null where unknown. */
  series: Partial<Record<SeriesName, (number | null)[]>>;
}

export interface LogLine {
  /** ISO 8601 with nanoseconds. */
  time: string;
  stream: "stdout" | "stderr" | null;
  labels: { namespace?: string | null; pod?: string | null; container?: string | null; file?: string | null };
  text: string;
}

export interface LogPage {
  /** Newest first. */
  lines: LogLine[];
  /** Cursor to the next older page. */
  next: string | null;
}

export interface TailedFile {
  path: string;
  namespace: string | null;
  pod: string | null;
  container: string | null;
  format: string;
  offset: number;
  size: number;
  lag_bytes: number;
  lag_seconds: number | null;
  state: "open" | "rotated" | "waiting" | "error";
  last_error: string | null;
  /** What its pod's annotations say in vain; its lines are shipped all the same. */
  notes: string[];
}

/** What the log panel asks for; empty strings mean "any". */
export interface LogFilter {
  query: string;
  namespace: string;
  pod: string;
  container: string;
}

/** The agent answered, with something else than what was asked for. `message` is its sentence. */
export class ApiError extends Error {
  constructor(
    readonly status: number,
    message: string,
  ) {
    super(message);
  }
}

export const getStatus = () => get<Status>("status");

/** Samples newer than `since`, unix seconds. */
export const getHistory = (since: number) => get<HistoryPage>("metrics/history", { since: String(since) });

export const getFiles = () => get<Files>("files");

export function getLogs(
  filter: LogFilter,
  page: { since: number; limit: number; before?: string | null },
  signal: AbortSignal,
): Promise<LogPage> {
  const more = { since: String(page.since), limit: String(page.limit), before: page.before ?? "" };
  return get<LogPage>("logs", { ...filter, ...more }, signal);
}

/** The newest documents that the server refused; 404 where the sink refuses none. */
export const getDeadLetters = (limit: number) => get<LogPage>("dead-letters", { limit: String(limit) });

/** What became of dead letters that were sent again, or how many were dropped. */
export interface LettersAnswer {
  accepted?: number;
  refused?: number;
  waiting?: number;
  dropped?: number;
  reason?: string | null;
}

/** Sends all dead letters again, or drops them. */
export const actOnLetters = (action: "resend" | "drop") =>
  ask<LettersAnswer>("POST", `dead-letters/${action}`, { all: "true" });

/** Each message of the stream is one `LogLine`. */
export const openTail = (filter: LogFilter) => new EventSource(address("logs/tail", { ...filter }));

const get = <T>(path: string, parameters: Record<string, string> = {}, signal?: AbortSignal) =>
  ask<T>("GET", path, parameters, signal);

async function ask<T>(method: string, path: string, parameters: Record<string, string>, signal?: AbortSignal): Promise<T> {
  const response = await fetch(address(path, parameters), {
    method,
    headers: { accept: "application/json" },
    cache: "no-store",
    ...(signal && { signal }),
  });
  if (!response.ok) throw new ApiError(response.status, await sentence(response));
  return (await response.json()) as T;
}

/** Relative, so that the page works behind a port-forward and below any path prefix. */
function address(path: string, parameters: Record<string, string>): string {
  const given = Object.entries(parameters).filter(([, value]) => value !== "");
  const search = new URLSearchParams(given).toString();
  return `api/v1/${path}${search && `?${search}`}`;
}

/** An error answer is `{"error": "sentence"}` or the bare sentence. */
async function sentence(response: Response): Promise<string> {
  const body = (await response.text()).trim();
  try {
    const parsed: unknown = JSON.parse(body);
    if (parsed && typeof parsed === "object" && "error" in parsed) return String(parsed.error);
  } catch {
    // Not JSON: the body itself is the sentence.
  }
  return body || `The agent answered ${response.status} ${response.statusText}.`;
}
