import { describe, expect, it } from "vitest";
import type { LogLine } from "../src/api";
import { Overlap } from "../src/merge";

const line = (text: string, time = "2026-11-21T10:00:00Z"): LogLine => ({ time, stream: "stdout", labels: { file: "/a" }, text });

describe("Overlap", () => {
  it("drops what was fetched already, once", () => {
    const overlap = new Overlap([line("a")]);
    expect(overlap.isNew(line("a"))).toBe(false);
    expect(overlap.isNew(line("a"))).toBe(true);
  });

  it("counts equal lines", () => {
    const overlap = new Overlap([line("a"), line("a")]);
    expect([1, 2, 3].map(() => overlap.isNew(line("a")))).toEqual([false, false, true]);
  });

  it("keeps a line of another time", () => expect(new Overlap([line("a")]).isNew(line("a", "2026-11-21T10:00:01Z"))).toBe(true));
});
