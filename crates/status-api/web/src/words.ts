/** What the numbers mean, in words. Pure: everything that the page says about the state comes from here. */

import type { Decision, DecisionAction, ServiceSnapshot, Snapshot } from "./wire";

/** `good`: success. `busy`: on the way there. `bad`: something is in the way. `unknown`: nobody knows. */
export type Tone = "good" | "busy" | "bad" | "unknown";

export interface Headline {
  tone: Tone;
  /** A short sentence without numbers that tick, so that it can be read aloud when it changes. */
  text: string;
  /** The arithmetic behind it. */
  detail: string;
}

/** The codes of `blocked_by` and `limited_by`, in the order in which they matter to a reader. */
const BLOCKED: readonly (readonly [code: string, words: string])[] = [
  ["unknown_demand", "a demand is not known"],
  ["capacity", "more is wanted than there is room for"],
  ["backing_off", "starts have failed and are being held back"],
  ["image_missing", "an image is not there"],
  ["registry_denied", "a registry refuses the login"],
  ["registry_unreachable", "a registry cannot be reached"],
  ["no_space", "an engine has no space for an image"],
  ["pull_stalled", "the pull of an image makes no progress"],
  ["pull_failed", "an image cannot be pulled"],
  ["paused", "a service is paused"],
  ["drain_waits", "a draining instance waits for room elsewhere"],
  ["fill_held", "the fill waits until demand is known"],
  ["scale_down_delayed", "containers that are no longer wanted are kept for a while"],
  ["share_delayed", "a service waits for its share"],
  ["replacement_waits", "containers of an older generation wait to be replaced"],
  ["rollout_no_room", "containers of an older generation stay: no room for their successors"],
  ["rollout_failing", "containers of an older generation stay: their successors fail to start"],
  ["unhealthy", "containers are unhealthy"],
  ["in_progress", "containers are being started or stopped"],
];

/** More services than this are compared in the table only. */
const COMPARED_MAX = 4;

/** A code of `blocked_by` in words; a code that this page does not know is shown as it is. */
export function blockedWords(code: string): string {
  return BLOCKED.find(([known]) => known === code)?.[1] ?? code.replaceAll("_", " ");
}

/** Codes in the order in which they matter; unknown ones first, since nobody has judged them harmless. */
export function byWeight(codes: readonly string[]): string[] {
  const rank = (code: string) => BLOCKED.findIndex(([known]) => known === code);
  return [...codes].sort((a, b) => rank(a) - rank(b) || (a < b ? -1 : 1));
}

/** A served sentence, which has neither capital nor full stop, as people write it. A name keeps its own case. */
export function sentence(text: string, names: readonly string[] = []): string {
  if (text === "") return "";
  const first = names.some((name) => text.startsWith(name)) ? text.charAt(0) : text.charAt(0).toUpperCase();
  return `${first}${text.slice(1)}.`;
}

/** `4 + 5 = 9 slots`: what runs, in the order of importance, against the usable slots. */
export function equation(snapshot: Snapshot): string {
  const terms = snapshot.services.map((service) => service.running * service.request.slots);
  const sum = terms.reduce((total, term) => total + term, 0);
  const usable = snapshot.usable_capacity.slots;
  const left = terms.length === 0 ? "0" : terms.join(" + ");
  return sum === usable ? `${left} = ${usable} slots` : `${left} ${terms.length > 1 ? `= ${sum} ` : ""}of ${usable} slots`;
}

/** `priority1: 4 running = 4 wanted`. */
function comparison({ name, running, demand, unmet }: ServiceSnapshot): string {
  if (demand === null) return `${name}: ${running} running, demand unknown`;
  const missing = unmet > 0 ? `, ${unmet} unmet` : "";
  return `${name}: ${running} running ${running === demand ? "=" : "≠"} ${demand} wanted${missing}`;
}

/** The success line. */
export function headline(snapshot: Snapshot): Headline {
  const demanded = snapshot.services.filter((service) => service.kind === "demand").slice(0, COMPARED_MAX);
  const detail = [...demanded.map(comparison), equation(snapshot)].join(" · ");
  if (snapshot.source?.live === false || snapshot.success === null) {
    return {
      tone: "unknown",
      text: "Not known whether demand is met: this is not the present.",
      detail: sentence(snapshot.source?.reason ?? "the last known state is shown"),
    };
  }
  if (snapshot.success) {
    return { tone: "good", text: "Every demand is met, and no room is left idle.", detail };
  }
  const codes = byWeight(snapshot.blocked_by);
  if (codes.every((code) => code === "in_progress")) {
    return { tone: "busy", text: "Catching up: containers are being started or stopped.", detail };
  }
  const reasons = codes.filter((code) => code !== "in_progress").map(blockedWords);
  return { tone: "bad", text: `Not met: ${reasons.join("; ")}.`, detail };
}

/** `4.2 s`, `12 s`, `3 min 5 s`, `2 h 10 min`, `3 d 4 h`. */
export function duration(ms: number): string {
  const seconds = Math.max(0, ms) / 1000;
  if (seconds < 10) return `${(Math.floor(seconds * 10) / 10).toFixed(1)} s`;
  const whole = Math.floor(seconds);
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${whole % 60} s`;
  if (whole < 86_400) return `${Math.floor(whole / 3600)} h ${Math.floor((whole % 3600) / 60)} min`;
  return `${Math.floor(whole / 86_400)} d ${Math.floor((whole % 86_400) / 3600)} h`;
}

/** Milliseconds as measured: `210 ms`, `1.4 s`, or a dash. */
export function latency(ms: number | null): string {
  if (ms === null) return "–";
  return ms < 1000 ? `${ms} ms` : `${(ms / 1000).toFixed(1)} s`;
}

/** What has become of the work of a service that fills: `work kept 3 min 5 s, lost 12 s`; nothing while there is none. */
export function workWords({ work_kept_ms, work_lost_ms }: Pick<ServiceSnapshot, "work_kept_ms" | "work_lost_ms">): string {
  if (!work_kept_ms && !work_lost_ms) return "";
  return `work kept ${duration(work_kept_ms ?? 0)}, lost ${duration(work_lost_ms ?? 0)}`;
}

/** Whether a decision is more than the removal of containers that have ended. */
export function changesWhatRuns({ actions, not_done }: Pick<Decision, "actions" | "not_done">): boolean {
  return not_done.length > 0 || actions.some(({ action }) => action !== "remove");
}

/** One action of a decision as a sentence, with what became of it. */
export function actionWords(action: DecisionAction): string {
  const took = action.took_ms === null ? "" : ` after ${latency(action.took_ms)}`;
  const outcome = {
    pending: "under way",
    done: `done${took}`,
    already: "was so already",
    failed: `failed${took}`,
    unknown: "the engine gave no clear answer",
  }[action.outcome];
  const detail = action.detail === undefined ? "" : `: ${action.detail}`;
  return sentence(`${action.words} (${outcome}${detail})`);
}
