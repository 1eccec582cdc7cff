// The newest log lines: search, filters, live tail.

import { ApiError, getLogs, type LogFilter, type LogLine, type LogPage, type TailedFile } from "../api";
import { debounce, h, icon, setText } from "../dom";
import { counted } from "../format";
import { LogList } from "../loglist";
import type { LabelName } from "../logline";
import { Overlap } from "../merge";
import { marks, withField } from "../query";
import { Tail } from "../tail";
import { emptyText } from "./empty";

const PAGE = 200;
const TYPING = 220;
const RANGES: [seconds: number, label: string][] = [
  [900, "15 min"],
  [3600, "1 h"],
  [21600, "6 h"],
  [86400, "24 h"],
];
const CHIPS = ["namespace", "pod", "container"] as const;
const HINT = 'words  "a phrase"  -not  field:value  /regex/';
const SEARCH = "M7 11.5a4.5 4.5 0 1 0 0-9 4.5 4.5 0 0 0 0 9zM10.3 10.3 14 14";

export class LogsPanel {
  readonly element: HTMLElement;
  private readonly filter: LogFilter = { query: "", namespace: "", pod: "", container: "" };
  private readonly search = h("input", {
    type: "search", placeholder: `Search: ${HINT}`, "aria-label": "Search the log lines", spellcheck: "false", autocomplete: "off",
  });
  private readonly chips = h("div", { class: "chips" });
  private readonly range = h(
    "select",
    { "aria-label": "How far back" },
    ...RANGES.map(([seconds, label]) => h("option", { value: seconds, text: label })),
  );
  private readonly follow = toggle("Follow", "Show new lines as they are written");
  private readonly wrap = toggle("Wrap", "Break long lines; else click one to open it");
  private readonly summary = h("span", { class: "when" });
  private readonly message = h("p", { class: "empty", role: "status", hidden: true });
  private readonly list = new LogList({
    label: (name, value) => this.narrow(name, value),
    older: () => void this.older(),
    stuck: () => this.scrolled(),
  });
  private following = true;
  private paused = false;
  /** Lines may be missing; asking again waits until the reader is back at the newest line. */
  private stale = false;
  private tail: Tail | null = null;
  private request = new AbortController();
  private next: string | null = null;
  private loadingOlder = false;
  private files: TailedFile[] = [];
  private sources: string[] = [];

  /** `unauthorized` is called when the token is missing or wrong. */
  constructor(private readonly unauthorized: () => void) {
    this.restore();
    const box = h("label", { class: "search" }, icon(SEARCH), this.search, h("kbd", { text: "/", title: "Press / to search" }));
    const bar = h("div", { class: "bar-row" }, box, this.chips, h("div", { class: "controls" }, this.range, this.wrap, this.follow));
    this.element = h(
      "section",
      { class: "panel logs", "aria-label": "Logs" },
      h("header", { class: "panel-head" }, h("h2", { text: "Logs" }), this.summary),
      h("div", { class: "card log-card" }, bar, this.message, this.list.element),
    );
    this.listen();
    this.setWrap(matchMedia("(max-width: 700px)").matches);
  }

  /** What is tailed, for a useful sentence when there is nothing to show. */
  know(files: TailedFile[], sources: string[]): void {
    [this.files, this.sources] = [files, sources];
    if (!this.message.hidden && !this.message.classList.contains("bad")) this.describe();
  }

  focus(): void {
    this.search.focus();
    this.search.select();
  }

  /** Shows only the lines of this file's container, or of the file. */
  pick(file: TailedFile): void {
    for (const name of CHIPS) this.filter[name] = file[name] ?? "";
    this.element.scrollIntoView({ behavior: "smooth", block: "start" });
    void this.reload();
  }

  /** Asks again after lines may have been missed, without taking away what is being read. */
  refresh(): void {
    this.stale = true;
    if (!this.paused) void this.reload();
  }

  /** Asks again for the newest lines, and follows from there. */
  async reload(): Promise<void> {
    this.request.abort();
    this.stale = false;
    const { signal } = (this.request = new AbortController());
    this.filter.query = this.search.value.trim();
    this.remember();
    this.showChips();
    this.element.classList.add("busy");
    const early = this.startTail();
    try {
      const page = await getLogs(this.filter, { since: Number(this.range.value), limit: PAGE }, signal);
      this.show(page, early);
    } catch (error) {
      if (!signal.aborted) this.fail(error);
    } finally {
      if (!signal.aborted) this.element.classList.remove("busy");
    }
  }

  /** Opens the tail before the page is asked for, so that no line falls between; returns what holds the early lines. */
  private startTail(): { lines: LogLine[]; ready: (take: (lines: LogLine[]) => void) => void } {
    this.tail?.close();
    const lines: LogLine[] = [];
    let sink = (more: LogLine[]): void => void lines.push(...more);
    const events = { lines: (more: LogLine[]) => sink(more), broken: () => this.refresh() };
    this.tail = this.following ? new Tail(this.filter, events) : null;
    this.showFollow();
    return { lines, ready: (take) => void (sink = take) };
  }

  private show(page: LogPage, early: ReturnType<LogsPanel["startTail"]>): void {
    const overlap = new Overlap(page.lines);
    const take = (lines: LogLine[]): void => {
      const fresh = lines.filter((line) => overlap.isNew(line));
      if (this.list.append(fresh)) this.next = null;
      this.describe();
    };
    this.next = page.next;
    this.list.reset([...page.lines].reverse(), marks(this.filter.query));
    early.ready(take);
    take(early.lines);
  }

  private async older(): Promise<void> {
    if (!this.next || this.loadingOlder) return;
    this.loadingOlder = true;
    const { signal } = this.request;
    try {
      const page = await getLogs(this.filter, { since: Number(this.range.value), limit: PAGE, before: this.next }, signal);
      this.next = page.next;
      this.list.prepend([...page.lines].reverse());
      this.describe();
    } catch (error) {
      if (!signal.aborted) this.list.edge = sentence(error);
    } finally {
      this.loadingOlder = false;
    }
  }

  /** Says what is shown; or, when that is nothing, why. */
  private describe(): void {
    const size = this.list.size;
    const range = this.range.selectedOptions[0]?.text ?? "";
    this.message.hidden = size > 0;
    this.message.classList.remove("bad");
    this.search.removeAttribute("aria-invalid");
    this.list.element.hidden = size === 0;
    setText(this.summary, size > 0 ? `newest ${counted(size, "line")}` : "");
    this.list.edge = this.next ? "Older lines follow as you scroll up" : `No older lines here within ${range}`;
    if (size === 0) setText(this.message, emptyText({ ...this.filter, range, files: this.files, sources: this.sources }));
  }

  private fail(error: unknown): void {
    this.tail?.close();
    this.tail = null;
    this.showFollow();
    if (error instanceof ApiError && error.status === 401) return this.unauthorized();
    // Nobody answered: the lines that are here still are what they were, and the page says so above.
    if (!(error instanceof ApiError) && this.list.size > 0) return;
    this.list.element.hidden = true;
    this.message.hidden = false;
    this.message.classList.add("bad");
    this.search.setAttribute("aria-invalid", "true");
    setText(this.message, sentence(error));
    setText(this.summary, "");
  }

  private narrow(name: LabelName, value: string): void {
    if (name === "file") this.search.value = withField(this.search.value, "file", value);
    else this.filter[name] = value;
    void this.reload();
  }

  private showChips(): void {
    const set = CHIPS.filter((name) => this.filter[name] !== "");
    this.chips.replaceChildren(...set.map((name) => this.chip(name)));
  }

  private chip(name: (typeof CHIPS)[number]): HTMLElement {
    const remove = (): void => {
      this.filter[name] = "";
      void this.reload();
    };
    const title = `Remove: ${name} ${this.filter[name]}`;
    const value = h("span", { text: this.filter[name] });
    return h("button", { class: "chip", type: "button", title, on: { click: remove } }, h("small", { text: name }), value, "×");
  }

  private listen(): void {
    const soon = debounce(TYPING, () => void this.reload());
    this.search.addEventListener("input", soon);
    this.search.addEventListener("keydown", (event) => {
      if (event.key === "Enter") void this.reload();
      if (event.key === "Escape") this.search.blur();
    });
    this.range.addEventListener("change", () => void this.reload());
    this.wrap.addEventListener("click", () => this.setWrap(this.wrap.getAttribute("aria-pressed") !== "true"));
    this.follow.addEventListener("click", () => this.clickFollow());
  }

  /** Off follows again, paused goes on, following stops. */
  private clickFollow(): void {
    if (this.following && this.paused) return this.list.resume();
    this.following = !this.following;
    this.showFollow();
    void this.reload();
  }

  private scrolled(): void {
    this.showFollow();
    if (!this.paused && this.stale) void this.reload();
  }

  private showFollow(): void {
    this.paused = !this.list.isStuck;
    const state = !this.following ? "off" : this.paused ? "paused" : this.tail ? "on" : "waiting";
    this.follow.dataset.state = state;
    this.follow.setAttribute("aria-pressed", String(this.following));
    setText(this.follow, { off: "Follow", paused: "Paused", waiting: "Waiting", on: "Following" }[state]);
  }

  private setWrap(on: boolean): void {
    this.wrap.setAttribute("aria-pressed", String(on));
    this.list.wrap = on;
  }

  /** The search lives in the address after `#`, so that a reload keeps it and a link carries it. */
  private remember(): void {
    const state = new URLSearchParams(Object.entries(this.filter).filter(([, value]) => value !== ""));
    if (this.range.value !== "86400") state.set("since", this.range.value);
    history.replaceState(null, "", `${location.pathname}${location.search}${state.size > 0 ? `#${state}` : ""}`);
  }

  private restore(): void {
    const state = new URLSearchParams(location.hash.slice(1));
    this.search.value = state.get("query") ?? "";
    for (const name of CHIPS) this.filter[name] = state.get(name) ?? "";
    this.range.value = state.get("since") ?? "86400";
    if (!this.range.value) this.range.value = "86400";
    this.showFollow();
  }
}

const toggle = (text: string, title: string): HTMLButtonElement =>
  h("button", { class: "toggle", type: "button", text, title, "aria-pressed": "false" });

const sentence = (error: unknown): string => (error instanceof ApiError ? error.message : "The agent does not answer.");
