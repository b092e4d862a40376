import type { ServiceSnapshot, Snapshot } from "../src/wire";

export interface Demo {
  demand: number | null;
  running: [number, number];
  unmet?: number;
  success?: boolean;
  blocked_by?: string[];
  epoch?: string;
  sequence?: number;
}

/** The demo: three instances of three slots, priority 1 after a demand, priority 2 in what is left. */
export function demo(given: Demo): Snapshot {
  const service = (name: string, priority: number, running: number): ServiceSnapshot => ({
    name,
    kind: priority === 1 ? "demand" : "fill",
    priority,
    request: { slots: 1 },
    demand: priority === 1 ? given.demand : null,
    freshness: priority === 1 ? (given.demand === null ? "unknown" : "fresh") : null,
    target: priority === 1 ? given.demand : null,
    starting: 0,
    running,
    stopping: 0,
    frozen: 0,
    standby: 0,
    unhealthy: 0,
    outdated: 0,
    work_lost_ms: priority === 1 ? null : 0,
    work_kept_ms: priority === 1 ? null : 0,
    unmet: priority === 1 ? (given.unmet ?? 0) : 0,
    limited_by: [],
    paused: false,
  });
  const latency = { count: 0, p50_ms: null, p99_ms: null, last_ms: null };
  return {
    epoch: given.epoch ?? "9c2e",
    sequence: given.sequence ?? 1,
    taken_at: "2026-11-22T17:00:00.000Z",
    cluster: "demo",
    success: given.success ?? true,
    success_since: "2026-11-22T17:00:00.000Z",
    blocked_by: given.blocked_by ?? [],
    summary: "",
    capacity: { slots: 9 },
    usable_capacity: { slots: 9 },
    used: { slots: given.running[0] + given.running[1] },
    services: [service("priority1", 1, given.running[0]), service("priority2", 2, given.running[1])],
    instances: [],
    reaction: latency,
    start: latency,
    stop: latency,
    source: { live: true, since: "2026-11-22T17:00:00.000Z" },
  };
}
