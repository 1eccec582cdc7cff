// The table of tailed files: how far each is read, and what is wrong with it.

import type { ContainerLedger, TailedFile } from "../api";
import { h, setText } from "../dom";
import { bytes, count, counted, duration, splitPath } from "../format";
import { noFiles } from "./empty";
import { account } from "./ledger";
import { sortFiles, type SortKey } from "../sort";

/** More rows than this are asked for with a button: a node may have ten thousand files. */
const SHOWN = 100;

const COLUMNS: [SortKey, string][] = [
  ["state", "State"],
  ["path", "File"],
  ["pod", "Namespace / pod / container"],
  ["progress", "Read"],
  ["lag", "Behind"],
];

interface Row {
  element: HTMLTableRowElement;
  update: (file: TailedFile, ledger: ContainerLedger | undefined) => void;
}

export class FilesPanel {
  readonly element: HTMLElement;
  private readonly body = h("tbody");
  private readonly summary = h("span", { class: "when" });
  private readonly more = h("button", { class: "quiet more", type: "button", hidden: true });
  private readonly empty = h("p", { class: "empty", hidden: true });
  private readonly heads: HTMLElement[];
  private readonly rows = new Map<string, Row>();
  private files: TailedFile[] = [];
  /** By namespace, pod and container. */
  private ledgers = new Map<string, ContainerLedger>();
  private sort: SortKey = "state";
  private descending = false;
  private shown = SHOWN;

  /** `pick` is called with a file whose labels were clicked. */
  constructor(
    ledger: HTMLElement,
    private readonly pick: (file: TailedFile) => void,
  ) {
    this.heads = COLUMNS.map(([key, label]) =>
      h("th", { scope: "col", class: `c-${key}` }, h("button", { type: "button", text: label, on: { click: () => this.sortBy(key) } })),
    );
    this.more.addEventListener("click", () => {
      this.shown = Infinity;
      this.draw();
    });
    const table = h("table", { class: "files" }, h("thead", {}, h("tr", {}, ...this.heads)), this.body);
    const card = h("div", { class: "card" }, ledger, h("div", { class: "table-scroll" }, table), this.empty, this.more);
    const head = h("header", { class: "panel-head" }, h("h2", { text: "Delivery" }), this.summary);
    this.element = h("section", { class: "panel", "aria-label": "Delivery" }, head, card);
    this.draw();
  }

  update(files: TailedFile[], containers: ContainerLedger[], sources: string[]): void {
    this.files = files;
    this.ledgers = new Map(containers.map((ledger) => [owner(ledger), ledger]));
    this.empty.hidden = files.length > 0;
    setText(this.empty, noFiles(sources));
    this.draw();
  }

  private sortBy(key: SortKey): void {
    this.descending = this.sort === key && !this.descending;
    this.sort = key;
    this.draw();
  }

  private draw(): void {
    const sorted = sortFiles(this.files, this.sort, this.descending);
    const visible = sorted.slice(0, this.shown);
    const rows = visible.map((file) => this.row(file));
    // Moving rows takes the focus from the one in use: only when the order changed.
    if (rows.length !== this.body.rows.length || rows.some((row, at) => row !== this.body.rows[at])) this.body.replaceChildren(...rows);
    const paths = new Set(visible.map((file) => file.path));
    for (const path of this.rows.keys()) if (!paths.has(path)) this.rows.delete(path);
    this.more.hidden = visible.length === sorted.length;
    setText(this.more, `Show all ${counted(sorted.length, "file")}`);
    setText(this.summary, summary(this.files));
    this.heads.forEach((head, index) => {
      const active = COLUMNS[index]?.[0] === this.sort;
      head.setAttribute("aria-sort", active ? (this.descending ? "descending" : "ascending") : "none");
    });
  }

  private row(file: TailedFile): HTMLTableRowElement {
    let row = this.rows.get(file.path);
    if (!row) this.rows.set(file.path, (row = createRow(file, this.pick)));
    row.update(file, this.ledgers.get(owner(file)));
    return row.element;
  }
}

function owner({ namespace, pod, container }: { namespace: string | null; pod: string | null; container: string | null }): string {
  return [namespace, pod, container].map((name) => name ?? "").join("/");
}

function createRow(file: TailedFile, pick: (file: TailedFile) => void): Row {
  const [folder, name] = splitPath(file.path);
  const path = h("span", { class: "path" }, h("span", { text: folder }), h("b", { text: name }));
  const labels = [file.namespace, file.pod, file.container].filter((label) => label !== null).join(" / ");
  const origin = h("button", { type: "button", class: "link", text: labels, on: { click: () => pick(file) } });
  const bar = h("i");
  const read = h("span");
  const lag = h("td", { class: "c-lag" });
  const state = h("span", { class: "state" });
  const error = h("span", { class: "error-text" });
  const notes = h("span", { class: "note-text" });
  const element = h(
    "tr",
    {},
    h("td", { class: "c-state" }, state),
    h("td", { class: "c-path", title: file.path }, path, error, notes),
    h("td", { class: "c-pod" }, labels ? origin : h("span", { class: "none", text: "–" })),
    h("td", { class: "c-progress" }, h("span", { class: "bar" }, bar), read),
    lag,
  );
  const update = (now: TailedFile, ledger: ContainerLedger | undefined): void => {
    origin.title = ledger ? `${account(ledger)}. Show them` : "Show its lines";
    bar.style.width = `${now.size > 0 ? Math.min(100, (100 * now.offset) / now.size) : 100}%`;
    setText(read, `${bytes(now.offset)} of ${bytes(now.size)}`);
    setText(lag, lagText(now));
    lag.classList.toggle("none", now.lag_bytes === 0);
    setText(state, now.state);
    element.dataset.state = now.state;
    setText(error, now.last_error ?? "");
    setText(notes, now.notes.join("; "));
  };
  return { element, update };
}

function lagText(file: TailedFile): string {
  if (file.lag_bytes === 0) return "–";
  return file.lag_seconds === null ? bytes(file.lag_bytes) : `${bytes(file.lag_bytes)}, ${duration(file.lag_seconds)}`;
}

function summary(files: TailedFile[]): string {
  const bad = files.filter((file) => file.state === "error").length;
  const behind = files.reduce((sum, file) => sum + file.lag_bytes, 0);
  const parts = [counted(files.length, "file"), behind > 0 ? `${bytes(behind)} behind` : "nothing behind"];
  if (bad > 0) parts.push(`${count(bad)} with an error`);
  return files.length === 0 ? "" : parts.join(", ");
}
