/** Follows status-api's stream, and notices when it has gone quiet for a bad reason. */

import { get, Refused } from "./api";
import { type Link, retryDelay, SILENCE_MS, supersedes } from "./freshness";
import type { Snapshot } from "./wire";

export interface Followed {
  link: Link;
  snapshot: Snapshot | null;
  /** When status-api was last heard, by the local clock; null before the first time. */
  heardAt: number | null;
}

export class Follower {
  readonly state: Followed = { link: "connecting", snapshot: null, heardAt: null };
  #stream: EventSource | null = null;
  #attempt = 0;
  #probing = false;

  constructor(private readonly changed: (state: Followed) => void) {}

  start(): void {
    this.#connect();
    setInterval(() => void this.#lookIntoSilence(), 1_000);
    addEventListener("online", () => this.#connect());
  }

  #connect(): void {
    this.#stream?.close();
    const stream = new EventSource("/v1/stream");
    this.#stream = stream;
    stream.onopen = () => {
      this.#attempt = 0;
      // A resumed stream sends nothing while nothing has changed: what is shown is the present again.
      if (this.state.snapshot) this.#heard();
    };
    stream.onmessage = (event: MessageEvent<string>) => this.#take(JSON.parse(event.data) as Snapshot);
    stream.onerror = () => {
      this.#lost();
      // The browser retries a broken connection by itself, but gives up on an answer like 503.
      if (stream.readyState === EventSource.CLOSED && this.#stream === stream) {
        setTimeout(() => this.#stream === stream && this.#connect(), retryDelay(this.#attempt++, Math.random()));
      }
    };
  }

  #take(snapshot: Snapshot): void {
    if (supersedes(snapshot, this.state.snapshot)) this.state.snapshot = snapshot;
    this.#heard();
  }

  #heard(): void {
    this.state.heardAt = Date.now();
    this.state.link = "live";
    this.changed(this.state);
  }

  #lost(): void {
    this.state.link = "lost";
    this.changed(this.state);
  }

  async #lookIntoSilence(): Promise<void> {
    const { heardAt } = this.state;
    if (this.#probing || heardAt === null || Date.now() - heardAt < SILENCE_MS) return;
    this.#probing = true;
    try {
      const shown = this.state.snapshot;
      const wasLost = this.state.link === "lost";
      const now = await get<Snapshot>("/v1/snapshot");
      const missed =
        now.epoch !== shown?.epoch || now.sequence > shown.sequence || now.source?.live !== shown.source?.live;
      // It answers, but the stream did not bring this or has not come back: the connection is dead.
      if (this.state.snapshot === shown && (missed || wasLost)) this.#connect();
      this.#take(now);
    } catch (error) {
      if (!(error instanceof Refused)) throw error;
      this.#lost();
    } finally {
      this.#probing = false;
    }
  }
}
