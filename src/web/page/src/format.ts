// Numbers and times as people read them. Pure.

const NBSP = "\u00a0";
const BYTE_UNITS = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];

/** "0 B", "9.8 KiB", "312 MiB": three digits at most. */
export function bytes(value: number): string {
  let unit = 0;
  let scaled = Math.abs(value);
  // 1023.5 would print as "1024", which is the next unit's 1.
  while (scaled >= 1023.5 && unit < BYTE_UNITS.length - 1) {
    scaled /= 1024;
    unit += 1;
  }
  const digits = unit === 0 || scaled >= 99.95 ? 0 : 1;
  const text = scaled.toFixed(digits).replace(/\.0$/, "");
  return `${value < 0 ? "-" : ""}${text}${NBSP}${BYTE_UNITS[unit]}`;
}

export const bytesPerSecond = (value: number): string => `${bytes(value)}/s`;

/** A fraction as "0.4 %", "23 %". */
export function percent(fraction: number): string {
  const value = fraction * 100;
  const digits = value !== 0 && Math.abs(value) < 9.95 ? 1 : 0;
  return `${value.toFixed(digits)}${NBSP}%`;
}

/** "1,234,567" in every locale, so that two people read the same page. */
export const count = (value: number): string => Math.round(value).toLocaleString("en-US");

/** "1 line", "2 lines". */
export const counted = (value: number, one: string, many = `${one}s`): string =>
  `${count(value)}${NBSP}${value === 1 ? one : many}`;

/** A load average: "0.42", "12.3", "128". */
export const load = (value: number): string => value.toFixed(value >= 100 ? 0 : value >= 10 ? 1 : 2);

/** The two largest units: "12 s", "3 min", "3 h 5 min", "41 d 7 h". */
export function duration(seconds: number): string {
  const whole = Math.max(0, Math.floor(seconds));
  const parts: [number, string][] = [
    [Math.floor(whole / 86400), "d"],
    [Math.floor(whole / 3600) % 24, "h"],
    [Math.floor(whole / 60) % 60, "min"],
    [whole % 60, "s"],
  ];
  const first = parts.findIndex(([amount]) => amount > 0);
  if (first < 0) return `0${NBSP}s`;
  // Seconds beside minutes are noise on a page that is read at a glance.
  const kept = parts.slice(first, first === 2 ? 3 : first + 2);
  return kept
    .filter(([amount]) => amount > 0)
    .map(([amount, unit]) => `${amount}${NBSP}${unit}`)
    .join(" ");
}

/** Local "10:41". */
export const hourMinute = (unixSeconds: number): string => clock(new Date(unixSeconds * 1000)).slice(0, 5);

/** Local "10:41:22". */
export const hourMinuteSecond = (unixSeconds: number): string => clock(new Date(unixSeconds * 1000));

/** A log line's ISO time in the local zone: "10:41:22.123", with the day in front when it is not today's. */
export function lineTime(iso: string, today: Date = new Date()): string {
  const time = new Date(iso);
  if (Number.isNaN(time.getTime())) return iso;
  const text = `${clock(time)}.${String(time.getMilliseconds()).padStart(3, "0")}`;
  return time.toDateString() === today.toDateString() ? text : `${two(time.getMonth() + 1)}-${two(time.getDate())} ${text}`;
}

/** The offset of the browser's zone: "UTC", "UTC+2", "UTC-3:30". */
export function zoneOffset(date: Date = new Date()): string {
  const minutes = -date.getTimezoneOffset();
  if (minutes === 0) return "UTC";
  const rest = Math.abs(minutes) % 60;
  return `UTC${minutes < 0 ? "-" : "+"}${Math.floor(Math.abs(minutes) / 60)}${rest ? `:${two(rest)}` : ""}`;
}

/** "/var/log/syslog" as its folder with the last slash, and its name. */
export function splitPath(path: string): [folder: string, name: string] {
  const slash = path.lastIndexOf("/") + 1;
  return [path.slice(0, slash), path.slice(slash)];
}

/** "a, b and c" */
export const list = (words: readonly string[]): string =>
  words.length < 2 ? words.join("") : `${words.slice(0, -1).join(", ")} and ${words.at(-1)}`;

const two = (value: number): string => String(value).padStart(2, "0");

const clock = (time: Date): string => `${two(time.getHours())}:${two(time.getMinutes())}:${two(time.getSeconds())}`;
