import { describe, expect, it } from "vitest";
import { bytes, bytesPerSecond, count, counted, duration, lineTime, list, load, percent, splitPath } from "../src/format";

const plain = (text: string): string => text.replaceAll("\u00a0", " ");

describe("bytes", () => {
  it.each([
    [0, "0 B"],
    [1023, "1023 B"],
    [1024, "1 KiB"],
    [10035, "9.8 KiB"],
    [312 * 1024 ** 2, "312 MiB"],
    [1024 ** 3 - 1, "1 GiB"],
    [15.6 * 1024 ** 3, "15.6 GiB"],
    [-2048, "-2 KiB"],
    [1024 ** 7, "1048576 PiB"],
  ])("says %d as %s", (value, text) => expect(plain(bytes(value))).toBe(text));

  it("says rates per second", () => expect(plain(bytesPerSecond(2048))).toBe("2 KiB/s"));
});

describe("percent", () => {
  it.each([
    [0, "0 %"],
    [0.0042, "0.4 %"],
    [0.0994, "9.9 %"],
    [0.0996, "10 %"],
    [1, "100 %"],
  ])("says %d as %s", (fraction, text) => expect(plain(percent(fraction))).toBe(text));
});

describe("duration", () => {
  it.each([
    [-3, "0 s"],
    [0.4, "0 s"],
    [59, "59 s"],
    [61, "1 min"],
    [3600, "1 h"],
    [11160, "3 h 6 min"],
    [41 * 86400 + 7 * 3600 + 59 * 60, "41 d 7 h"],
  ])("says %d seconds as %s", (seconds, text) => expect(plain(duration(seconds))).toBe(text));
});

describe("counts", () => {
  it("groups thousands", () => expect(count(1234567)).toBe("1,234,567"));
  it("knows one from many", () => {
    expect(plain(counted(1, "line"))).toBe("1 line");
    expect(plain(counted(2, "line"))).toBe("2 lines");
  });
});

describe("load", () => {
  it.each([
    [0.416, "0.42"],
    [12.34, "12.3"],
    [128.4, "128"],
  ])("says %d as %s", (value, text) => expect(load(value)).toBe(text));
});

describe("lineTime", () => {
  const local = new Date(2026, 10, 21, 9, 8, 7, 65);

  it("keeps milliseconds and leaves today's date out", () => {
    expect(lineTime(local.toISOString(), new Date(2026, 10, 21, 23))).toBe("09:08:07.065");
  });
  it("puts another day in front", () => expect(lineTime(local.toISOString(), new Date(2026, 10, 22))).toBe("11-21 09:08:07.065"));
  it("reads nanoseconds", () => expect(lineTime("2026-11-21T10:00:00.123456789Z")).toMatch(/:00\.123$/));
  it("shows what is not a time as it is", () => expect(lineTime("soon")).toBe("soon"));
});

describe("splitPath", () => {
  it("cuts after the last slash", () => expect(splitPath("/var/log/syslog")).toEqual(["/var/log/", "syslog"]));
  it("takes a bare name", () => expect(splitPath("syslog")).toEqual(["", "syslog"]));
});

describe("list", () => {
  it("joins as people write", () => {
    expect(list([])).toBe("");
    expect(list(["a"])).toBe("a");
    expect(list(["a", "b", "c"])).toBe("a, b and c");
  });
});
