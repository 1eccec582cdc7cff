import { describe, expect, it } from "vitest";
import type { Ledger, TailedFile } from "../src/api";
import { emptyText } from "../src/panels/empty";
import { outcome } from "../src/panels/letters";
import { account, verdict } from "../src/panels/ledger";
import { sortFiles } from "../src/sort";

const plain = (text: string): string => text.replaceAll("\u00a0", " ");

const file = (path: string, more: Partial<TailedFile> = {}): TailedFile => ({
  path, namespace: null, pod: null, container: null, format: "plain", offset: 0, size: 0, lag_bytes: 0, lag_seconds: null, state: "open", last_error: null, notes: [], ...more,
});

describe("sortFiles", () => {
  const files = [
    file("/d"),
    file("/c", { lag_bytes: 5 }),
    file("/b", { last_error: "could not read" }),
    file("/a", { state: "waiting" }),
    file("/e", { state: "error", last_error: "could not open" }),
  ];
  const paths = (sorted: TailedFile[]): string => sorted.map((one) => one.path).join(" ");

  it("puts problems first, then what is most behind", () => expect(paths(sortFiles(files, "state", false))).toBe("/e /b /a /c /d"));
  it("turns around", () => expect(paths(sortFiles(files, "path", true))).toBe("/e /d /c /b /a"));
  it("puts files without a pod last", () => {
    const pod = file("/z", { namespace: "n", pod: "p", container: "c" });
    expect(paths(sortFiles([file("/a"), pod], "pod", false))).toBe("/z /a");
  });
});

describe("outcome of dead letters", () => {
  it.each([
    [{ dropped: 1 }, "1 document dropped."],
    [{ accepted: 2, refused: 0, waiting: 0, reason: null }, "2 accepted, 0 refused again, 0 not taken for now."],
    [{ accepted: 0, refused: 1, waiting: 0, reason: "400 why" }, "0 accepted, 1 refused again, 0 not taken for now. 400 why"],
  ])("%o", (answer, text) => expect(plain(outcome(answer))).toBe(text));
});

describe("verdict", () => {
  const ledger: Ledger = {
    read_lines: 10, read_bytes: 0, acked_lines: 6, acked_bytes: 0, in_flight_lines: 2, dead_letter_lines: 1, dropped_lines: 1, lost_lines: 0, lost_bytes: 0,
  };

  it("is content when the sum is right", () => expect(verdict(ledger).state).toBe("ok"));
  it.each([
    [{ read_lines: 12 }, "2 lines not accounted for"],
    [{ acked_lines: 7 }, "1 line accounted for twice"],
    [{ lost_bytes: 2048 }, "2 KiB of log were lost"],
    [{ read_lines: 13, lost_lines: 3 }, "3 lines were lost"],
  ])("says what is wrong: %o", (change, text) => expect(plain(verdict({ ...ledger, ...change }).text)).toBe(text));
});

describe("account", () => {
  it("says where the lines of a container are", () => {
    const ledger = { read_lines: 10, read_bytes: 0, acked_lines: 9, acked_bytes: 0, in_flight_lines: 0, dead_letter_lines: 1, dropped_lines: 0, lost_lines: 0, lost_bytes: 1024 };
    expect(plain(account(ledger))).toBe("Lines: 10 read, 9 acknowledged, 1 dead letter, 1 KiB lost");
  });
});

describe("emptyText", () => {
  const nothing = { query: "", namespace: "", pod: "", container: "", range: "24 h", files: [file("/a")], sources: ["/var/log/pods", "/var/log/syslog"] };

  it.each([
    [{ files: [] }, "No log files found: nodewarden looks at /var/log/pods and /var/log/syslog. Set logs.sources in its configuration to look elsewhere."],
    [{ files: [], sources: [] }, "No log files are looked for: set logs.sources in nodewarden's configuration."],
    [{}, "No lines within 24 h from the 1 file being read. New ones appear here as they are written."],
    [{ pod: "p" }, "No line of p within 24 h. Look further back, or remove a filter."],
    [{ query: "x" }, "No line within 24 h matches x. Look further back, or ask for less."],
  ])("%o", (change, text) => expect(plain(emptyText({ ...nothing, ...change }))).toBe(text));
});
