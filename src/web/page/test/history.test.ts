import { describe, expect, it } from "vitest";
import { History, lonely, niceTop, stack } from "../src/history";

const page = (times: number[]) => ({ step: 1, times, series: { load1: times.map((time) => time / 10) } });

describe("History", () => {
  it("adds only what is newer", () => {
    const history = new History(600);
    history.append(page([10, 11]));
    history.append(page([11, 12]));
    expect(history.times).toEqual([10, 11, 12]);
    expect(history.series("load1")).toEqual([1, 1.1, 1.2]);
    expect(history.last).toBe(12);
  });

  it("shows missing samples as a point without values", () => {
    const history = new History(600);
    history.append(page([10, 11]));
    history.append(page([20]));
    expect(history.times).toEqual([10, 11, 12, 20]);
    expect(history.series("load1")).toEqual([1, 1.1, null, 2]);
  });

  it("takes a late timer for no gap", () => {
    const history = new History(600);
    history.append(page([10, 11.4, 12.9]));
    expect(history.times).toEqual([10, 11.4, 12.9]);
  });

  it("forgets what left the window", () => {
    const history = new History(2);
    history.append(page([10, 11, 12, 13]));
    expect(history.times).toEqual([11, 12, 13]);
    expect(history.series("load1")).toHaveLength(3);
  });

  it("knows no values of a series that is not sent", () => {
    const history = new History(600);
    history.append(page([10]));
    expect(history.series("cpu_user")).toEqual([null]);
  });
});

describe("History.latest", () => {
  const history = new History(600);
  history.append(page([10, 11]));
  history.append(page([20]));

  it("is the newest known value", () => expect(history.latest("load1", 22, 5)).toBe(2));
  it("is unknown when that is too long ago", () => expect(history.latest("load1", 26, 5)).toBeNull());
  it("is unknown for a series without values", () => expect(history.latest("cpu_user", 20, 5)).toBeNull());
  it("is unknown after a new beginning", () => {
    history.clear();
    expect(history.latest("load1", 20, 5)).toBeNull();
    history.append(page([3]));
    expect(history.times).toEqual([3]);
  });
});

describe("stack", () => {
  it("adds each series to those below", () => expect(stack([[1, 2], [10, 20]])).toEqual([[1, 2], [11, 22]]));
  it("is unknown only where nothing is known", () => expect(stack([[1, null], [null, null]])).toEqual([[1, null], [1, null]]));
});

describe("lonely", () => {
  it("finds values between unknown ones", () => expect(lonely([1, null, 2, 3, null, 4])).toEqual([0, 5]));
});

describe("niceTop", () => {
  it.each([
    [0, 1],
    [1, 1],
    [1.1, 2],
    [7, 8],
    [9, 10],
    [11, 20],
    [0.03, 0.04],
  ])("covers %d with %d", (value, top) => expect(niceTop(value, 10, [1, 2, 4, 8])).toBeCloseTo(top));
});
