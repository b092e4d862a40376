import { describe, expect, it } from "vitest";
import { actionWords, blockedWords, byWeight, changesWhatRuns, duration, equation, headline, latency, sentence, workWords } from "../src/words";
import type { DecisionAction } from "../src/wire";
import { demo } from "./demo";

describe("the success line", () => {
  it("shows the arithmetic when it holds", () => {
    const line = headline(demo({ demand: 4, running: [4, 5] }));
    expect(line.tone).toBe("good");
    expect(line.text).toBe("Every demand is met, and no room is left idle.");
    expect(line.detail).toBe("priority1: 4 running = 4 wanted · 4 + 5 = 9 slots");
  });

  it("says that capacity is what is missing", () => {
    const line = headline(
      demo({ demand: 12, running: [9, 0], unmet: 3, success: false, blocked_by: ["capacity", "in_progress"] }),
    );
    expect(line.tone).toBe("bad");
    expect(line.text).toBe("Not met: more is wanted than there is room for.");
    expect(line.detail).toContain("priority1: 9 running ≠ 12 wanted, 3 unmet");
  });

  it("tells catching up from being stuck", () => {
    const line = headline(demo({ demand: 5, running: [4, 4], success: false, blocked_by: ["in_progress"] }));
    expect(line.tone).toBe("busy");
    expect(line.detail).toContain("4 + 4 = 8 of 9 slots");
  });

  it("never calls an old success a success", () => {
    const source = { live: false, since: "2026-11-22T17:00:00.000Z", reason: "connection refused" };
    for (const success of [true, null]) {
      const line = headline({ ...demo({ demand: 4, running: [4, 5] }), success, source });
      expect(line.tone).toBe("unknown");
      expect(line.detail).toBe("Connection refused.");
    }
  });

  it("names an unknown demand", () => {
    const line = headline(
      demo({ demand: null, running: [4, 5], success: false, blocked_by: ["unknown_demand"] }),
    );
    expect(line.text).toBe("Not met: a demand is not known.");
    expect(line.detail).toContain("priority1: 4 running, demand unknown");
  });
});

describe("codes", () => {
  it("are shown as they are when the page does not know them", () => {
    expect(blockedWords("solar_flare")).toBe("solar flare");
    expect(blockedWords("registry_denied")).toBe("a registry refuses the login");
    expect(headline(demo({ demand: 4, running: [4, 5], success: false, blocked_by: ["solar_flare"] })).tone).toBe(
      "bad",
    );
  });

  it("come in the order in which they matter", () => {
    expect(byWeight(["in_progress", "capacity", "new_code", "unknown_demand"])).toEqual([
      "new_code",
      "unknown_demand",
      "capacity",
      "in_progress",
    ]);
  });
});

it("an equation without services has no terms", () => {
  expect(equation({ ...demo({ demand: 0, running: [0, 0] }), services: [] })).toBe("0 of 9 slots");
});

it("durations read as people say them", () => {
  const cases: [number, string][] = [
    [-5, "0.0 s"],
    [0, "0.0 s"],
    [4_290, "4.2 s"],
    [9_999, "9.9 s"],
    [10_000, "10 s"],
    [59_999, "59 s"],
    [60_000, "1 min 0 s"],
    [3_725_000, "1 h 2 min"],
    [90_000_000, "1 d 1 h"],
  ];
  for (const [ms, words] of cases) expect(duration(ms)).toBe(words);
});

it("a served sentence gets its capital and its stop, and a name keeps its case", () => {
  expect(sentence("nothing is planned yet")).toBe("Nothing is planned yet.");
  expect(sentence("web has the 4 containers it wants", ["api", "web"])).toBe("web has the 4 containers it wants.");
  expect(sentence("")).toBe("");
});

it("latencies keep their unit", () => {
  expect([latency(null), latency(0), latency(210), latency(1_440)]).toEqual(["–", "0 ms", "210 ms", "1.4 s"]);
});

it("a decision that only tidies up is not news", () => {
  const action = (kind: string) => ({ action: kind }) as DecisionAction;
  expect(changesWhatRuns({ actions: [action("remove"), action("remove")], not_done: [] })).toBe(false);
  expect(changesWhatRuns({ actions: [action("remove"), action("stop")], not_done: [] })).toBe(true);
  expect(changesWhatRuns({ actions: [], not_done: [{ service: "a", reason: "capacity", words: "" }] })).toBe(true);
});

it("an action is a sentence with what became of it", () => {
  const action = {
    action: "stop",
    service: "priority2",
    instance: "instance-1",
    container: "force12.demo.priority2.instance-1.0",
    after: [],
    reason: "preempted",
    words: "stop priority2/0 on instance-1 to make room for priority1 (priority 1)",
    outcome: "done" as const,
    took_ms: 45,
  };
  expect(actionWords(action)).toBe(
    "Stop priority2/0 on instance-1 to make room for priority1 (priority 1) (done after 45 ms).",
  );
  expect(actionWords({ ...action, outcome: "failed", took_ms: null, detail: "no such image" })).toContain(
    "(failed: no such image).",
  );
});

describe("the work of what fills", () => {
  it("is told once there is any", () => {
    expect(workWords({ work_kept_ms: null, work_lost_ms: null })).toBe("");
    expect(workWords({ work_kept_ms: 0, work_lost_ms: 0 })).toBe("");
    expect(workWords({ work_kept_ms: 185_000, work_lost_ms: 0 })).toBe("work kept 3 min 5 s, lost 0.0 s");
    expect(workWords({ work_kept_ms: 0, work_lost_ms: 12_300 })).toBe("work kept 0.0 s, lost 12 s");
  });
});
