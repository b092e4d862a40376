import { describe, expect, it } from "vitest";
import { DocumentClock, isLive, notice, RETRY_FIRST_MS, RETRY_LAST_MS, retryDelay, supersedes } from "../src/freshness";
import { demo } from "./demo";

const snapshot = demo({ demand: 4, running: [4, 5], sequence: 7 });
const unheard = { ...snapshot, source: { live: false, since: "2026-11-22T17:00:30.000Z" } };

describe("what is shown as live", () => {
  it("is only what is heard all the way from the scheduler", () => {
    expect(isLive("live", snapshot)).toBe(true);
    expect(isLive("lost", snapshot)).toBe(false);
    expect(isLive("connecting", null)).toBe(false);
    expect(isLive("live", unheard)).toBe(false);
  });

  it("is otherwise announced with its age", () => {
    expect(notice("live", snapshot, 0)).toBeNull();
    expect(notice("live", unheard, 0)?.since).toBe(Date.parse("2026-11-22T17:00:30.000Z"));
    expect(notice("lost", snapshot, 1234)?.since).toBe(1234);
    expect(notice("lost", null, null)?.text).toContain("does not answer");
    expect(notice("connecting", null, null)?.text).toContain("Connecting");
  });
});

it("an older sequence of the same epoch is never shown again", () => {
  const older = { ...snapshot, sequence: 6 };
  expect(supersedes(snapshot, null)).toBe(true);
  expect(supersedes(older, snapshot)).toBe(false);
  expect(supersedes({ ...snapshot, sequence: 8 }, snapshot)).toBe(true);
  expect(supersedes(unheard, snapshot)).toBe(true);
  expect(supersedes({ ...older, epoch: "beef", sequence: 1 }, snapshot)).toBe(true);
});

it("waits grow, are bounded, and are spread", () => {
  expect(retryDelay(0, 1)).toBe(RETRY_FIRST_MS);
  expect(retryDelay(0, 0)).toBe(RETRY_FIRST_MS / 2);
  expect(retryDelay(1, 1)).toBe(2 * RETRY_FIRST_MS);
  expect(retryDelay(5_000, 1)).toBe(RETRY_LAST_MS);
});

it("the clock of the documents is learnt from the quickest of them", () => {
  const clock = new DocumentClock();
  expect(clock.now(500)).toBe(500);
  clock.observe(10_000, 5_000);
  clock.observe(10_500, 6_400);
  expect(clock.now(7_000)).toBe(12_000);
  clock.observe(20_000, 14_990);
  expect(clock.now(7_000)).toBe(12_010);
  clock.reset();
  expect(clock.now(7_000)).toBe(7_000);
});
