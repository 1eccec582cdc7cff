// The live tail: batches what arrives, and tells when the connection was lost in between.

import { openTail, type LogFilter, type LogLine } from "./api";

/** New lines are drawn this often, milliseconds: smooth to the eye, cheap at any rate. */
const BATCH = 250;
/** The server ended the stream: try again after this, milliseconds. */
const RETRY = 5000;

export interface TailEvents {
  lines: (lines: LogLine[]) => void;
  /** Lines may be missing: fetch again. */
  broken: () => void;
}

export class Tail {
  private readonly source: EventSource;
  private batch: LogLine[] = [];
  private timer = 0;
  private wasOpen = false;

  constructor(
    filter: LogFilter,
    private readonly events: TailEvents,
  ) {
    this.source = openTail(filter);
    this.source.onmessage = (message: MessageEvent<string>) => this.take(JSON.parse(message.data) as LogLine);
    this.source.onopen = () => {
      if (this.wasOpen) this.events.broken();
      this.wasOpen = true;
    };
    this.source.onerror = () => {
      // The browser reconnects by itself unless the answer was not a stream.
      if (this.source.readyState === EventSource.CLOSED) this.timer = window.setTimeout(this.events.broken, RETRY);
    };
  }

  close(): void {
    clearTimeout(this.timer);
    this.source.close();
  }

  private take(line: LogLine): void {
    if (this.batch.push(line) > 1) return;
    this.timer = window.setTimeout(() => {
      const lines = this.batch;
      this.batch = [];
      this.events.lines(lines);
    }, BATCH);
  }
}
