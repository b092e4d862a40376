/** The documents of status-api that the page reads; the OpenAPI document at /openapi.json says more. */

export interface Resources {
  slots: number;
  cpu_millis?: number;
  memory_mib?: number;
}

export type Freshness = "fresh" | "stale" | "unknown";
export type InstanceState = "ready" | "cordoned" | "draining" | "lost";
export type Phase = "created" | "starting" | "running" | "frozen" | "stopping" | "exited";

export interface ServiceSnapshot {
  name: string;
  kind: "demand" | "fill";
  priority: number;
  request: Resources;
  demand: number | null;
  freshness: Freshness | null;
  target: number | null;
  starting: number;
  running: number;
  stopping: number;
  frozen: number;
  standby: number;
  unhealthy: number;
  outdated: number;
  work_lost_ms: number | null;
  work_kept_ms: number | null;
  unmet: number;
  limited_by: string[];
  paused: boolean;
  reason?: string;
}

export interface ContainerSnapshot {
  id: string;
  name: string;
  service: string;
  phase: Phase;
  since: string;
  outdated?: boolean;
  fault?: "not_ready" | "unhealthy";
}

export interface InstanceSnapshot {
  name: string;
  state: InstanceState;
  reason: string | null;
  since: string;
  capacity: Resources;
  used: Resources;
  container_count: number;
  containers: ContainerSnapshot[];
}

export interface Latency {
  count: number;
  p50_ms: number | null;
  p99_ms: number | null;
  last_ms: number | null;
}

export interface Source {
  live: boolean;
  since: string;
  reason?: string;
}

export interface Snapshot {
  epoch: string;
  sequence: number;
  taken_at: string;
  cluster: string;
  success: boolean | null;
  success_since: string;
  blocked_by: string[];
  summary: string;
  capacity: Resources;
  usable_capacity: Resources;
  used: Resources;
  services: ServiceSnapshot[];
  instances: InstanceSnapshot[];
  reaction: Latency;
  start: Latency;
  stop: Latency;
  source?: Source;
}

export interface ServiceSample {
  demand: number | null;
  starting: number;
  running: number;
  stopping: number;
  frozen: number;
}

export interface Sample {
  at: string;
  live: boolean;
  success: boolean | null;
  usable_slots: number;
  services: (ServiceSample | null)[];
}

export interface Generator {
  pattern: string;
  min: number;
  max: number;
  interval_ms: number;
}

export interface History {
  window_ms: number;
  services: string[];
  samples: Sample[];
}

export interface DecisionAction {
  action: string;
  service: string;
  instance: string;
  container: string;
  after: string[];
  reason: string;
  words: string;
  outcome: "pending" | "done" | "already" | "failed" | "unknown";
  took_ms: number | null;
  detail?: string;
}

export interface Decision {
  epoch: string;
  sequence: number;
  decided_at: string;
  woken_by: string[];
  plan_ms: number;
  summary: string;
  inputs: { service: string }[];
  actions: DecisionAction[];
  not_done: { service: string; reason: string; words: string }[];
  trace_id?: string;
}

export interface DemandDocument {
  demand: Record<string, number | null>;
}

export interface Problem {
  title: string;
  status: number;
  detail?: string;
}
