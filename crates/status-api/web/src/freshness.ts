/** How far what the page shows can be trusted. Pure: times are passed in. */

import type { Snapshot } from "./wire";

/** An open stream on which nothing came for this long is looked into: a quiet cluster is silent too. */
export const SILENCE_MS = 5_000;
/** The first wait before the page connects again; doubled each time, up to the last. */
export const RETRY_FIRST_MS = 500;
export const RETRY_LAST_MS = 10_000;

/** `connecting`: nothing was ever received. `live`: heard lately. `lost`: status-api is not heard. */
export type Link = "connecting" | "live" | "lost";

/** What the banner says; null while everything is live. */
export interface Notice {
  text: string;
  /** The moment from which the age counts, by the clock of the documents; null if nothing is known. */
  since: number | null;
}

/** Whether what is shown is the present. */
export function isLive(link: Link, snapshot: Snapshot | null): boolean {
  return link === "live" && snapshot !== null && snapshot.source?.live !== false;
}

/** What is to be said about the source of what is shown. `heardAt` is when the page last heard of status-api. */
export function notice(link: Link, snapshot: Snapshot | null, heardAt: number | null): Notice | null {
  if (link === "connecting") return { text: "Connecting to status-api.", since: null };
  if (link === "lost") {
    return {
      text:
        heardAt === null
          ? "status-api does not answer, or has not heard of the scheduler yet."
          : "Connection to status-api lost. This is the last known state, not the present.",
      since: heardAt,
    };
  }
  if (snapshot?.source?.live === false) {
    return {
      text: "The scheduler is not heard. This is the last known state, not the present.",
      since: Date.parse(snapshot.source.since),
    };
  }
  return null;
}

/** Whether `next` may replace `shown`: never an older sequence of the same epoch. */
export function supersedes(next: Snapshot, shown: Snapshot | null): boolean {
  return shown === null || next.epoch !== shown.epoch || next.sequence >= shown.sequence;
}

/** The wait before attempt number `attempt` (from 0), with `random` in 0..1 spreading many pages apart. */
export function retryDelay(attempt: number, random: number): number {
  const full = Math.min(RETRY_LAST_MS, RETRY_FIRST_MS * 2 ** Math.min(attempt, 16));
  return full * (0.5 + random / 2);
}

/**
 * The clock of the documents, as seen from here. A document can only arrive after it was made, so the
 * largest difference seen is the nearest to the truth.
 */
export class DocumentClock {
  #offset: number | null = null;

  observe(documentMs: number, localMs: number): void {
    const offset = documentMs - localMs;
    if (this.#offset === null || offset > this.#offset) this.#offset = offset;
  }

  /** The local clock may have been set, or the machine have slept: begin again. */
  reset(): void {
    this.#offset = null;
  }

  now(localMs: number): number {
    return localMs + (this.#offset ?? 0);
  }
}
