import { describe, expect, it } from "vitest";
import { columns, type Point, pointOf, POINTS_MAX, Trace } from "../src/series";
import { demo } from "./demo";

const { services } = demo({ demand: 0, running: [0, 0] });

function point(at: number, demand: number | null, running: [number, number], live = true): Point {
  return { ...pointOf(demo({ demand, running }), at), live };
}

describe("columns", () => {
  it("stack in the order of importance, in slots", () => {
    const wide = services.map((service, at) => ({ ...service, request: { slots: at + 1 } }));
    const { stacks, demand, usable, top } = columns([point(1_000, 4, [3, 2])], wide, 0, 2_000);
    expect(stacks).toEqual([
      [3, 3],
      [7, 7],
    ]);
    expect(demand).toEqual([4, 4]);
    expect(usable).toEqual([9, 9]);
    expect(top).toBe(9);
  });

  it("begin at the left edge with what held there, and end now", () => {
    const { x, stacks } = columns(
      [point(1_000, 1, [1, 8]), point(4_000, 2, [2, 7]), point(6_000, 3, [3, 6])],
      services,
      5_000,
      8_000,
    );
    expect(x).toEqual([5, 6, 8]);
    expect(stacks[0]).toEqual([2, 3, 3]);
  });

  it("show nothing where nothing was heard, and all that was known up to there", () => {
    const { x, stacks, gaps } = columns(
      [point(1_000, 4, [4, 5]), point(3_000, 4, [4, 5], false), point(5_000, 2, [2, 7])],
      services,
      1_000,
      6_000,
    );
    expect(x).toEqual([1, 3, 3, 5, 6]);
    expect(stacks[0]).toEqual([4, 4, null, 2, 2]);
    expect(gaps).toEqual([[3, 5]]);
  });

  it("are a gap before the first sample and after the last sign of life", () => {
    expect(columns([], services, 0, 1_000).gaps).toEqual([[0, 1]]);
    const { gaps } = columns([point(2_000, 4, [4, 5]), point(3_000, null, [0, 0], false)], services, 0, 9_000);
    expect(gaps).toEqual([
      [0, 2],
      [3, 9],
    ]);
  });

  it("draw no demand where it is unknown, and a demand of 0 where it is 0", () => {
    const { demand } = columns([point(0, null, [4, 5]), point(1_000, 0, [0, 9])], services, 0, 2_000);
    expect(demand).toEqual([null, 0, 0]);
  });

  it("reach up to a demand beyond the capacity", () => {
    expect(columns([point(0, 12, [9, 0])], services, 0, 1_000).top).toBe(12);
  });
});

describe("a trace", () => {
  it("reads a history, with services that come and go", () => {
    const count = { demand: null, starting: 0, running: 5, stopping: 0, frozen: 0 };
    const trace = Trace.of({
      window_ms: 60_000,
      services: ["priority1", "priority2"],
      samples: [
        { at: "2026-11-22T17:00:00.000Z", live: true, success: true, usable_slots: 9, services: [null, count] },
        { at: "2026-11-22T17:00:01.000Z", live: false, success: null, usable_slots: 9, services: [null, null] },
      ],
    });
    expect(trace.points.map(({ live, counts }) => [live, [...counts.keys()]])).toEqual([
      [true, ["priority2"]],
      [false, []],
    ]);
  });

  it("keeps what was seen before a served history begins, and what came after it was asked for", () => {
    const own = new Trace();
    for (const at of [1_000, 2_000, 3_000, 4_000, 5_000]) own.add(point(at, 1, [1, 8]));
    const served = new Trace();
    for (const at of [2_500, 3_500]) served.add(point(at, 2, [2, 7]));
    expect(own.merged(served, 4).points.map(({ at }) => at)).toEqual([1_000, 2_000, 2_500, 3_500, 5_000]);
    expect(own.merged(new Trace(), 4).points.length).toBe(5);
  });

  it("never goes back in time, and is bounded", () => {
    const trace = new Trace();
    trace.add(point(1_000, 4, [4, 5]));
    trace.add(point(900, 5, [4, 5]));
    expect(trace.points.map(({ at }) => at)).toEqual([1_000, 1_000]);
    for (let at = 0; at < POINTS_MAX; at += 1) trace.add(point(2_000 + at, 4, [4, 5]));
    expect(trace.points.length).toBe(POINTS_MAX);
    expect(trace.points[0]?.at).toBe(2_000);
  });
});
