// Guesses how bad a log line is from its text. Pure.

export type Level = "error" | "warn" | "debug" | null;

/** Levels stand near the start of a line; further in, words such as "error" are prose. */
const LOOK_AT = 240;

const ERROR = "emerg(?:ency)?|alert|crit(?:ical)?|fatal|panic|error|err|severe";
const WARN = "warn(?:ing)?";
const DEBUG = "debug|trace|verbose";

const RULES: [Level, RegExp][] = [
  ["error", rule(ERROR)],
  ["warn", rule(WARN)],
  ["debug", rule(DEBUG)],
];

/** klog: "E1121 10:41:22.123456 ..." */
const KLOG = /^([IWEF])\d{4} \d\d:\d\d:\d\d/;
/** Redirected colours: SGR sequences. */
const COLOUR = /\u001b\[[\d;]*m/g;

/** The level a line seems to have; null for informational lines and for lines without one. */
export function guessLevel(text: string): Level {
  const start = text.slice(0, LOOK_AT);
  const klog = KLOG.exec(start)?.[1];
  if (klog) return klog === "E" || klog === "F" ? "error" : klog === "W" ? "warn" : null;
  let first: Level = null;
  let at = Infinity;
  for (const [level, expression] of RULES) {
    const index = start.search(expression);
    if (index >= 0 && index < at) [first, at] = [level, index];
  }
  return first;
}

/** The text without terminal colours. */
export const plain = (text: string): string => (text.includes("\u001b") ? text.replace(COLOUR, "") : text);

/** `ERROR`, `level=error`, `"level":"error"`, `[error]`, `<err>`, `error: ...`; not "0 errors" or "no error found". */
function rule(words: string): RegExp {
  const upper = words.replace(/[a-z]+/g, (word) => word.toUpperCase());
  const key = `(?:level|lvl|severity)"?\\s*[=:]\\s*"?(?:${words}|${upper})\\b`;
  const fenced = `[\\[<(|](?:${words}|${upper})[\\]>)|:]`;
  const led = `(?:^|[\\s\\]])(?:${words}|${words.replace(/(^|\|)[a-z]/g, (first) => first.toUpperCase())})(?:\\[\\d+\\])?:`;
  return new RegExp(`(?<![\\w-])(?:${upper})(?![\\w-])|${key}|${fenced}|${led}`);
}
