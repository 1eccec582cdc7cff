// One log line as a row.

import type { LogLine } from "./api";
import { h, icon } from "./dom";
import { lineTime, splitPath } from "./format";
import { guessLevel, plain } from "./level";
import { highlight } from "./query";

export type LabelName = "namespace" | "pod" | "container" | "file";

/** Colours that tell containers apart; the style sheet has as many `.hue-N`. */
const HUES = 8;
const COPY = "M5.5 5.5v-3h8v8h-3M2.5 5.5h8v8h-8z";

/** Labels carry `data-label` and `data-value`, the copy button `data-copy`: the list listens for all its rows. */
export function createRow(line: LogLine, expressions: RegExp[]): HTMLElement {
  const text = plain(line.text);
  const level = guessLevel(text);
  const source = [line.labels.namespace, line.labels.pod, line.labels.container, line.labels.file].join("/");
  const pieces = highlight(text, expressions).map((piece) => (piece.hit ? h("mark", { text: piece.text }) : piece.text));
  return h(
    "div",
    { class: `line hue-${hue(source)}`, "data-level": level },
    h("time", { text: lineTime(line.time), title: line.stream ? `${line.time}, ${line.stream}` : line.time }),
    h("span", { class: "origin" }, ...labels(line)),
    h("span", { class: "text" }, ...pieces),
    h("button", { class: "copy", type: "button", title: "Copy line", "data-copy": true, tabindex: -1 }, icon(COPY)),
  );
}

/** A row that says that lines are missing here. */
export const createGap = (text: string): HTMLElement => h("div", { class: "gap", text });

function labels(line: LogLine): HTMLElement[] {
  const { namespace, pod, container, file } = line.labels;
  if (pod) return [label("namespace", namespace), label("pod", pod), label("container", container)].filter((one) => one !== null);
  const whole = file && label("file", file, splitPath(file)[1]);
  return whole ? [whole] : [];
}

function label(name: LabelName, value: string | null | undefined, shown = value): HTMLElement | null {
  if (!value || !shown) return null;
  const title = `Only ${name} ${value}`;
  return h("button", { type: "button", text: shown, title, "data-label": name, "data-value": value, tabindex: -1 });
}

function hue(source: string): number {
  let hash = 7;
  for (const letter of source) hash = (hash * 31 + (letter.codePointAt(0) ?? 0)) | 0;
  return Math.abs(hash) % HUES;
}
