// The ledger: where every line that was read is now.

import type { Ledger } from "../api";
import { h, setText } from "../dom";
import { bytes, count, counted } from "../format";

const TERMS = [
  ["read_lines", "read", ""],
  ["acked_lines", "acknowledged", "="],
  ["in_flight_lines", "in flight", "+"],
  ["dead_letter_lines", "dead letter", "+"],
  ["dropped_lines", "dropped by rule", "+"],
] as const;

export class LedgerPanel {
  readonly element: HTMLElement;
  private readonly values = TERMS.map(([key]) => h("b", { "data-ledger": key }));
  private readonly lost = h("b", { "data-ledger": "lost_bytes" });
  private readonly verdict = h("span", { class: "verdict" });

  constructor() {
    const terms = TERMS.map(([, label, sign], index) =>
      h("li", {}, sign ? h("i", { text: sign }) : null, h("span", {}, this.values[index] ?? null, h("small", { text: label }))),
    );
    const lost = h("li", {}, h("i", { text: "+" }), h("span", {}, this.lost, h("small", { text: "lost" })));
    this.element = h("div", { class: "ledger" }, h("ul", {}, ...terms, lost), this.verdict);
  }

  update(ledger: Ledger): void {
    TERMS.forEach(([key], index) => {
      const element = this.values[index];
      if (!element) return;
      setText(element, count(ledger[key]));
      element.parentElement?.classList.toggle("bad", key === "dead_letter_lines" && ledger[key] > 0);
    });
    setText(this.lost, bytes(ledger.lost_bytes));
    this.lost.parentElement?.classList.toggle("bad", ledger.lost_bytes > 0);
    const { text, state } = verdict(ledger);
    setText(this.verdict, text);
    this.verdict.dataset.state = state;
    this.verdict.title = `${bytes(ledger.read_bytes)} read, ${bytes(ledger.acked_bytes)} acknowledged`;
  }
}

/** Where the lines of one container are, in words. */
export function account(ledger: Ledger): string {
  const terms = TERMS.filter(([key]) => key === "read_lines" || ledger[key] > 0).map(([key, label]) => `${count(ledger[key])} ${label}`);
  if (ledger.lost_bytes > 0) terms.push(`${bytes(ledger.lost_bytes)} lost`);
  return `Lines: ${terms.join(", ")}`;
}

/** What the sums say, in words. */
export function verdict(ledger: Ledger): { text: string; state: "ok" | "bad" } {
  const accounted =
    ledger.acked_lines + ledger.in_flight_lines + ledger.dead_letter_lines + ledger.dropped_lines + ledger.lost_lines;
  const missing = ledger.read_lines - accounted;
  if (ledger.lost_bytes > 0) return { text: `${bytes(ledger.lost_bytes)} of log were lost`, state: "bad" };
  if (ledger.lost_lines > 0) return { text: `${counted(ledger.lost_lines, "line")} were lost`, state: "bad" };
  if (missing > 0) return { text: `${counted(missing, "line")} not accounted for`, state: "bad" };
  if (missing < 0) return { text: `${counted(-missing, "line")} accounted for twice`, state: "bad" };
  return { text: "every line accounted for", state: "ok" };
}
