// The search box's language, as far as the page must know it: which parts of a line to highlight. Pure.

/** A stretch of a line's text; `hit` when the query asked for it. */
export interface Piece {
  text: string;
  hit: boolean;
}

/** A regular expression of the user's runs on no more than this of a line: the page must not hang on one of its own marks. */
const REGEX_LIMIT = 4096;

/** A regular expression ends its word: `/var/log/syslog` is a path, and people search for paths. */
const TOKEN = /(-?)(?:([A-Za-z_][\w.]*)(:|>=|<=|=|>|<))?(?:"((?:[^"\\]|\\.)*)"?|\/((?:[^/\\]|\\.)*)\/(?!\S)|(\S+))/g;

/** The expressions to mark for a query: words, "phrases" and /regexes/; not what is excluded, nor values of fields. */
export function marks(query: string): RegExp[] {
  const found: RegExp[] = [];
  for (const [, minus, field, , phrase, regex, word] of query.matchAll(TOKEN)) {
    if (minus || field) continue;
    const source = regex ?? escape(phrase?.replace(/\\(.)/g, "$1") ?? word ?? "");
    const mark = source ? compile(source) : null;
    if (mark) found.push(mark);
  }
  return found;
}

/** Cuts a text into marked and plain pieces; joined they give the text again. */
export function highlight(text: string, expressions: RegExp[]): Piece[] {
  const ranges = expressions.flatMap((expression) => matches(text, expression)).sort((a, b) => a[0] - b[0]);
  const pieces: Piece[] = [];
  let at = 0;
  for (const [start, end] of ranges) {
    if (end <= at) continue;
    if (start > at) pieces.push({ text: text.slice(at, start), hit: false });
    const from = Math.max(start, at);
    const last = pieces.at(-1);
    if (last?.hit && from === at) last.text += text.slice(from, end);
    else pieces.push({ text: text.slice(from, end), hit: true });
    at = end;
  }
  if (at < text.length) pieces.push({ text: text.slice(at), hit: false });
  return pieces;
}

/** `query` with `field:"value"` added, unless it is there already. */
export function withField(query: string, field: string, value: string): string {
  const term = `${field}:"${value.replace(/["\\]/g, "\\$&")}"`;
  return query.includes(term) ? query : `${query} ${term}`.trim();
}

function matches(text: string, expression: RegExp): [number, number][] {
  const found: [number, number][] = [];
  for (const match of text.slice(0, REGEX_LIMIT).matchAll(expression)) {
    if (match[0]) found.push([match.index, match.index + match[0].length]);
  }
  return found;
}

/** The agent judges the expression; one that only it understands is searched for, yet not marked. */
function compile(source: string): RegExp | null {
  try {
    return new RegExp(source, "giu");
  } catch {
    return null;
  }
}

const escape = (text: string): string => text.replace(/[.*+?^${}()|[\]\\/]/g, "\\$&");
