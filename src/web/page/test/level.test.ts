import { describe, expect, it } from "vitest";
import { guessLevel, plain } from "../src/level";

describe("guessLevel", () => {
  it.each([
    ["error", "2026-11-21 10:41:22 ERROR price lookup failed"],
    ["error", '{"ts":1,"level":"error","msg":"x"}'],
    ["error", "time=x level=fatal msg=y"],
    ["error", "[error] 31#31: *1 connect() failed"],
    ["error", "error: could not open"],
    ["error", "kubelet[903]: error: failed"],
    ["error", "Error: Cannot find module"],
    ["error", "panic: runtime error"],
    ["error", "E1121 10:41:22.123456 1 proxier.go:853] bad"],
    ["error", "thread main <CRITICAL> out of disk"],
    ["warn", "WARN o.a.k.NetworkClient"],
    ["warn", '{"severity": "WARNING"}'],
    ["warn", "level=warn error=timeout"],
    ["warn", "W1121 10:41:22.123456 1 reflector.go:539] ended"],
    ["debug", "DEBUG pool stats"],
    [null, "I1121 10:41:22.123456 1 a.go:1] ERROR in a klog info line"],
    [null, "0 errors, no error found"],
    [null, "GET /error/page HTTP/1.1"],
    [null, "TERROR-free ERROR_COUNT=0"],
    [null, ""],
    [null, `${"x".repeat(300)} ERROR far away`],
  ])("%s: %s", (level, text) => expect(guessLevel(text)).toBe(level));
});

describe("plain", () => {
  it("takes terminal colours away", () => expect(plain("\u001b[31mred\u001b[0m [m")).toBe("red [m"));
});
