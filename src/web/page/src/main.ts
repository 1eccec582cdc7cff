// Puts the panels on the page and keeps them fed.

import "uplot/dist/uPlot.min.css";
import "./style.css";
import { ApiError, getDeadLetters, getFiles, getHistory, getStatus, type Status, type Files } from "./api";
import { h } from "./dom";
import { zoneOffset } from "./format";
import { History } from "./history";
import { ChartsPanel } from "./panels/charts";
import { FilesPanel } from "./panels/files";
import { HeaderPanel } from "./panels/header";
import { LedgerPanel } from "./panels/ledger";
import { LettersPanel } from "./panels/letters";
import { LogsPanel } from "./panels/logs";
import { Banner, tokenNote } from "./panels/notes";
import { poll } from "./poll";

const WINDOW_SECONDS = 600;
/** Samples further ahead than this mean that the agent's clock went back. */
const CLOCK_SLACK_SECONDS = 5;
const EVERY = { history: 1000, status: 2000, files: 3000, letters: 10_000 };
/** Dead letters on the page. */
const LETTERS = 20;

class Page {
  private readonly header = new HeaderPanel();
  private readonly ledger = new LedgerPanel();
  private readonly logs = new LogsPanel(() => this.lock());
  private readonly files = new FilesPanel(this.ledger.element, (file) => this.logs.pick(file));
  private readonly letters = new LettersPanel(() => void this.attempt("letters", () => this.nextLetters()));
  private readonly history = new History(WINDOW_SECONDS);
  private readonly banner = new Banner();
  private readonly charts: ChartsPanel;
  private locked = false;
  private sources: string[] = [];
  /** Whether the sink may refuse documents. */
  private readonly refuses: boolean;
  /** The agent's clock less ours, seconds. */
  private ahead = 0;

  constructor(
    private readonly root: HTMLElement,
    status: Status,
  ) {
    this.charts = new ChartsPanel(status);
    this.refuses = status.sink.kind === "elasticsearch";
    root.replaceChildren(
      this.banner.element,
      this.header.element,
      this.charts.element,
      this.logs.element,
      this.files.element,
      this.letters.element,
      h("footer", { class: "foot" }, `Times are local, ${zoneOffset()}. `, h("kbd", { text: "/" }), " searches."),
    );
    this.showStatus(status);
    document.addEventListener("keydown", (event) => this.key(event));
  }

  start(): void {
    void this.logs.reload();
    poll(EVERY.history, async () => {
      await this.attempt("history", () => this.nextHistory());
      // Also when nobody answered: the charts move on, and the silence shows as a gap.
      this.charts.update(this.history, this.now());
    });
    poll(EVERY.status, () => this.attempt("status", async () => this.showStatus(await getStatus())));
    if (this.refuses) poll(EVERY.letters, () => this.attempt("letters", () => this.nextLetters()));
    poll(EVERY.files, () => this.attempt("files", async () => this.showFiles(await getFiles())));
  }

  private async nextHistory(): Promise<void> {
    if (this.history.last > this.now() + CLOCK_SLACK_SECONDS) this.history.clear();
    const since = Math.max(this.history.last, this.now() - WINDOW_SECONDS);
    this.history.append(await getHistory(since));
  }

  private async nextLetters(): Promise<void> {
    const { lines, next } = await getDeadLetters(LETTERS);
    this.letters.update(lines, next !== null);
  }

  /** Asks one question; says on top of the page when there is no answer. */
  private async attempt(what: string, ask: () => Promise<void>): Promise<void> {
    if (this.locked) return;
    try {
      await ask();
      if (this.banner.hide(what)) this.logs.refresh();
    } catch (error) {
      if (error instanceof ApiError && error.status === 401) this.lock();
      else this.banner.show(what, error instanceof ApiError ? error.message : null);
    }
  }

  private showStatus(status: Status): void {
    this.ahead = status.now - Date.now() / 1000;
    this.sources = status.sources;
    this.header.update(status);
    this.ledger.update(status.ledger);
  }

  private showFiles({ files, containers }: Files): void {
    this.files.update(files, containers, this.sources);
    this.logs.know(files, this.sources);
  }

  private readonly now = (): number => Date.now() / 1000 + this.ahead;

  private lock(): void {
    this.locked = true;
    this.root.replaceChildren(tokenNote());
  }

  private key(event: KeyboardEvent): void {
    const typing = event.target instanceof HTMLInputElement || event.target instanceof HTMLSelectElement;
    if (event.key !== "/" || typing || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    this.logs.focus();
  }
}

/** The first answer decides what the page is; until it comes there is only a sentence. */
async function open(root: HTMLElement): Promise<void> {
  try {
    new Page(root, await getStatus()).start();
  } catch (error) {
    if (error instanceof ApiError && error.status === 401) return root.replaceChildren(tokenNote());
    const reason = error instanceof ApiError ? error.message : "The agent does not answer.";
    root.replaceChildren(h("p", { class: "note card", text: `${reason} Trying again.` }));
    setTimeout(() => void open(root), 2000);
  }
}

const root = document.getElementById("page");
if (root) void open(root);
