import { describe, expect, it } from "vitest";
import { highlight, marks, withField } from "../src/query";

/** The line with its hits in brackets. */
const shown = (query: string, text: string): string =>
  highlight(text, marks(query)).map((piece) => (piece.hit ? `[${piece.text}]` : piece.text)).join("");

describe("highlight", () => {
  it.each([
    ["", "nothing asked", "nothing asked"],
    ["time", "Read timed out, no time", "Read [time]d out, no [time]"],
    ["READ timed", "Read timed out", "[Read] [timed] out"],
    ['"timed out"', "Read timed out", "Read [timed out]"],
    ['"an open', "an open quote", "[an open] quote"],
    ['"a \\"word\\""', 'say a "word" now', 'say [a "word"] now'],
    ["-timed out", "Read timed out", "Read timed [out]"],
    ["pod:api error", "pod:api error", "pod:api [error]"],
    ['pod:"my api" error', "my api error", "my api [error]"],
    ["level>=warn slow", "warn slow", "warn [slow]"],
    ["/t[io]m\\w+/", "Read timed out", "Read [timed] out"],
    ["/[/ out", "Read timed out", "Read timed [out]"],
    ["a.c", "abc a.c", "abc [a.c]"],
    ["/x*/", "aaa", "aaa"],
    ["abc bcd", "abcd", "[abcd]"],
    ["/var/log/syslog", "in /var/log/syslog", "in [/var/log/syslog]"],
  ])("%s in %s", (query, text, expected) => expect(shown(query, text)).toBe(expected));

  it("gives the text again, whatever is asked", () => {
    const text = "a ü \u{1f600} -b";
    for (const query of ["ü", "/./", "\u{1f600}", "- \" / :"]) {
      expect(highlight(text, marks(query)).map((piece) => piece.text).join("")).toBe(text);
    }
  });
});

describe("withField", () => {
  it("adds a field once", () => {
    const once = withField("error", "file", "/var/log/syslog");
    expect(once).toBe('error file:"/var/log/syslog"');
    expect(withField(once, "file", "/var/log/syslog")).toBe(once);
  });
  it("escapes quotes", () => expect(withField("", "file", 'a"b')).toBe('file:"a\\"b"'));
});
