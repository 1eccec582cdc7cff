// Documents that the server refused for good: why, and what to do with them. Not there while there are none.

import { actOnLetters, ApiError, type LettersAnswer, type LogLine } from "../api";
import { h, setText } from "../dom";
import { counted, lineTime } from "../format";

interface Letter {
  index: string;
  reason: string;
  document: string;
}

export class LettersPanel {
  readonly element: HTMLElement;
  private readonly body = h("tbody");
  private readonly summary = h("span", { class: "when" });
  private readonly said = h("p", { class: "empty", role: "status", hidden: true });
  private readonly buttons: HTMLButtonElement[];

  /** `changed` is called when letters were sent again or dropped. */
  constructor(private readonly changed: () => void) {
    const button = (text: string, act: () => void): HTMLButtonElement =>
      h("button", { class: "quiet", type: "button", text, on: { click: act } });
    this.buttons = [
      button("Send all again", () => void this.act("resend")),
      button("Drop all", () => {
        if (confirm("Drop every dead letter? Nobody has these documents then.")) void this.act("drop");
      }),
    ];
    const columns = ["Time", "From", "Index", "Reason"].map((text) => h("th", { scope: "col", text }));
    const table = h("table", { class: "files" }, h("thead", {}, h("tr", {}, ...columns)), this.body);
    const card = h("div", { class: "card" }, h("div", { class: "table-scroll" }, table), this.said);
    const head = h("header", { class: "panel-head" }, h("h2", { text: "Dead letters" }), this.summary, ...this.buttons);
    this.element = h("section", { class: "panel", "aria-label": "Dead letters", hidden: true }, head, card);
  }

  /** The newest letters, as the API lists them; `more` when there are others. */
  update(lines: LogLine[], more: boolean): void {
    this.element.hidden = lines.length === 0 && this.said.hidden;
    setText(this.summary, more ? `the newest ${lines.length}` : counted(lines.length, "document"));
    this.body.replaceChildren(...lines.map(row));
    for (const button of this.buttons) button.hidden = lines.length === 0;
  }

  private async act(action: "resend" | "drop"): Promise<void> {
    for (const button of this.buttons) button.disabled = true;
    try {
      this.say(outcome(await actOnLetters(action)));
      this.changed();
    } catch (error) {
      this.say(error instanceof ApiError ? error.message : "The agent does not answer.");
    }
    for (const button of this.buttons) button.disabled = false;
  }

  private say(text: string): void {
    this.said.hidden = false;
    setText(this.said, text);
  }
}

/** What became of them, in words. */
export function outcome(answer: LettersAnswer): string {
  if (answer.dropped !== undefined) return `${counted(answer.dropped, "document")} dropped.`;
  const counts = `${answer.accepted ?? 0} accepted, ${answer.refused ?? 0} refused again, ${answer.waiting ?? 0} not taken for now.`;
  return answer.reason ? `${counts} ${answer.reason}` : counts;
}

function row(line: LogLine): HTMLElement {
  const { namespace, pod, container, file } = line.labels;
  const from = namespace ? `${namespace}/${pod ?? ""}/${container ?? ""}` : (file ?? "");
  const { index, reason, document } = letterOf(line.text);
  const cells = [lineTime(line.time), from, index, reason].map((text) => h("td", { text }));
  return h("tr", { title: document }, ...cells);
}

/** A letter's text is JSON that the agent wrote; what is not is shown as it is. */
function letterOf(text: string): Letter {
  try {
    const { index = "", reason = "", document = "" } = JSON.parse(text) as Partial<Letter>;
    return { index, reason, document };
  } catch {
    return { index: "", reason: text, document: "" };
  }
}
