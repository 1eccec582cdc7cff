// The scrolling list of log lines: oldest above, newest below, stuck to the bottom until the reader scrolls up.

import type { LogLine } from "./api";
import { h, setText } from "./dom";
import { count, counted } from "./format";
import { createGap, createRow, type LabelName } from "./logline";

/** Following keeps this many rows; older ones are a search away. */
const FOLLOWED = 1000;
/** Nearer to the edge than this counts as being there, pixels. */
const NEAR = 40;

export interface LogListEvents {
  /** A label was clicked. */
  label: (name: LabelName, value: string) => void;
  /** The reader scrolled to the oldest line. */
  older: () => void;
  /** Stuck to the bottom, or not any more. */
  stuck: (stuck: boolean) => void;
}

export class LogList {
  readonly element: HTMLElement;
  private readonly rows = h("div", { class: "rows" });
  private readonly top = h("p", { class: "edge" });
  private readonly scroller = h(
    "div",
    { class: "lines", tabindex: 0, role: "log", "aria-live": "off", "aria-label": "Log lines" },
    this.top,
    this.rows,
  );
  private readonly jump = h("button", { class: "jump", type: "button", hidden: true });
  private waiting: LogLine[] = [];
  private skipped = 0;
  private stuck = true;
  private expressions: RegExp[] = [];

  constructor(private readonly events: LogListEvents) {
    this.element = h("div", { class: "line-box" }, this.scroller, this.jump);
    this.scroller.addEventListener("scroll", () => this.scrolled(), { passive: true });
    this.rows.addEventListener("click", (event) => this.clicked(event));
    this.jump.addEventListener("click", () => this.resume());
    new ResizeObserver(() => this.stick()).observe(this.scroller);
  }

  get size(): number {
    return this.rows.childElementCount;
  }

  get isStuck(): boolean {
    return this.stuck;
  }

  set wrap(on: boolean) {
    this.scroller.classList.toggle("wrap", on);
    this.stick();
  }

  /** What stands above the oldest line. */
  set edge(text: string) {
    setText(this.top, text);
  }

  /** Shows these lines, oldest first, in place of all others. */
  reset(lines: LogLine[], expressions: RegExp[]): void {
    this.expressions = expressions;
    this.waiting = [];
    this.skipped = 0;
    this.rows.replaceChildren(...this.make(lines));
    this.resume();
  }

  /** Puts older lines, oldest first, above; what is being read stays where it is. */
  prepend(lines: LogLine[]): void {
    const before = this.scroller.scrollHeight;
    this.rows.prepend(...this.make(lines));
    this.scroller.scrollTop += this.scroller.scrollHeight - before;
  }

  /** Adds new lines below, or holds them while the reader looks at older ones. True when rows had to go for them. */
  append(lines: LogLine[]): boolean {
    this.waiting.push(...lines);
    const excess = this.waiting.length - FOLLOWED;
    if (excess > 0) {
      this.waiting.splice(0, excess);
      this.skipped += excess;
    }
    if (this.stuck) return this.flush();
    this.showJump();
    return false;
  }

  /** Back to the newest line. */
  resume(): void {
    this.setStuck(true);
    this.flush();
    this.stick();
  }

  private flush(): boolean {
    this.jump.hidden = true;
    if (this.waiting.length === 0) return false;
    if (this.skipped > 0) this.rows.append(createGap(`${counted(this.skipped, "line")} not shown here: search finds them`));
    this.rows.append(...this.make(this.waiting));
    this.waiting = [];
    this.skipped = 0;
    const excess = this.size - FOLLOWED;
    for (let left = excess; left > 0; left--) this.rows.firstElementChild?.remove();
    this.stick();
    return excess > 0;
  }

  private stick(): void {
    if (this.stuck) this.scroller.scrollTop = this.scroller.scrollHeight;
  }

  private scrolled(): void {
    const { scrollTop, scrollHeight, clientHeight } = this.scroller;
    const atEnd = scrollHeight - scrollTop - clientHeight < NEAR;
    if (atEnd && !this.stuck) this.resume();
    else this.setStuck(atEnd);
    if (scrollTop < NEAR && scrollHeight > clientHeight) this.events.older();
  }

  private setStuck(stuck: boolean): void {
    if (this.stuck === stuck) return;
    this.stuck = stuck;
    if (!stuck) this.showJump();
    this.events.stuck(stuck);
  }

  private showJump(): void {
    const held = this.waiting.length + this.skipped;
    this.jump.hidden = false;
    setText(this.jump, held > 0 ? `${count(held)} new ${held === 1 ? "line" : "lines"} ↓` : "Newest ↓");
  }

  private make(lines: LogLine[]): HTMLElement[] {
    return lines.map((line) => createRow(line, this.expressions));
  }

  private clicked(event: Event): void {
    const target = event.target instanceof Element ? event.target : null;
    const row = target?.closest<HTMLElement>(".line");
    if (!target || !row) return;
    const label = target.closest<HTMLElement>("[data-label]");
    const copy = target.closest<HTMLElement>("[data-copy]");
    if (label) this.events.label(label.dataset.label as LabelName, label.dataset.value ?? "");
    else if (copy) void copyText(row, copy);
    else if (getSelection()?.isCollapsed) row.classList.toggle("open");
  }
}

/** Plain HTTP from another machine has no clipboard: there the text is selected, ready for Ctrl+C. */
async function copyText(row: HTMLElement, button: HTMLElement): Promise<void> {
  const text = row.querySelector(".text");
  if (!text) return;
  try {
    await navigator.clipboard.writeText(text.textContent ?? "");
    button.classList.add("done");
    setTimeout(() => button.classList.remove("done"), 1200);
  } catch {
    getSelection()?.selectAllChildren(text);
  }
}
