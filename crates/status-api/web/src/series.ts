/** From samples to the columns of the history chart: stacking, the demand line, honest gaps. Pure. */

import type { History, ServiceSnapshot, Snapshot } from "./wire";

/** The counts of one service at one moment; demand is null where it is unknown or the service fills. */
export interface Count {
  running: number;
  demand: number | null;
}

/** The counts at one moment; they hold until the next point. */
export interface Point {
  /** Milliseconds since the Unix epoch, by the clock of the documents. */
  at: number;
  live: boolean;
  usable: number;
  counts: ReadonlyMap<string, Count>;
}

/** More points than the widest window of the page holds at the stream's full rate are not kept. */
export const POINTS_MAX = 20_000;

/** Points in the order of time. */
export class Trace {
  readonly points: Point[] = [];

  /** Everything that status-api has kept. */
  static of(history: History): Trace {
    const trace = new Trace();
    for (const sample of history.samples) {
      const counts = new Map<string, Count>();
      history.services.forEach((name, at) => {
        const count = sample.services[at];
        if (count) counts.set(name, { running: count.running, demand: count.demand });
      });
      trace.add({ at: Date.parse(sample.at), live: sample.live, usable: sample.usable_slots, counts });
    }
    return trace;
  }

  /**
   * The same with what `served` knows better: its points replace our own from its first on, up to our point number
   * `after`, which was the next when it was asked for. What we saw earlier stays: a status-api that was started
   * again begins with nothing.
   */
  merged(served: Trace, after: number): Trace {
    const result = new Trace();
    const from = served.points[0]?.at ?? Infinity;
    this.points.forEach((point, index) => {
      if (point.at < from && index < after) result.add(point);
    });
    for (const point of [...served.points, ...this.points.slice(after)]) result.add(point);
    return result;
  }

  /** The page's own loss of connection, or a snapshot as it arrives. An earlier moment is moved to the last. */
  add(point: Point): void {
    const last = this.points.at(-1);
    this.points.push(last !== undefined && point.at < last.at ? { ...point, at: last.at } : point);
    if (this.points.length > POINTS_MAX) this.points.splice(0, this.points.length - POINTS_MAX);
  }
}

/** A snapshot as a point at the moment of its arrival. */
export function pointOf(snapshot: Snapshot, at: number): Point {
  const counts = new Map<string, Count>();
  for (const service of snapshot.services) {
    counts.set(service.name, { running: service.running, demand: service.demand });
  }
  return { at, live: snapshot.source?.live !== false, usable: snapshot.usable_capacity.slots, counts };
}

export interface Columns {
  /** Seconds since the Unix epoch. */
  x: number[];
  usable: (number | null)[];
  /** Slots that are wanted by all demands together; null where one is unknown. */
  demand: (number | null)[];
  /** By service, in the order given: slots running of it and of all before it. */
  stacks: (number | null)[][];
  /** Where nothing is known, in seconds. */
  gaps: [from: number, to: number][];
  /** The largest value in the window. */
  top: number;
}

/** The steps between `from` and `now` (milliseconds). Counts become slots by each service's request. */
export function columns(
  points: readonly Point[],
  services: readonly Pick<ServiceSnapshot, "name" | "kind" | "request">[],
  from: number,
  now: number,
): Columns {
  const result: Columns = { x: [], usable: [], demand: [], stacks: services.map(() => []), gaps: [], top: 0 };
  const push = (seconds: number, point: Point | null) => {
    const live = point?.live ? point : null;
    result.x.push(seconds);
    result.usable.push(live ? live.usable : null);
    let total = 0;
    let wanted: number | null = null;
    let unknown = false;
    services.forEach((service, at) => {
      const count = live?.counts.get(service.name);
      total += (count?.running ?? 0) * service.request.slots;
      result.stacks[at]?.push(live ? total : null);
      if (service.kind === "demand" && count) {
        if (count.demand === null) unknown = true;
        else wanted = (wanted ?? 0) + count.demand * service.request.slots;
      }
    });
    const demand = live && !unknown ? wanted : null;
    result.demand.push(demand);
    result.top = Math.max(result.top, total, demand ?? 0, live?.usable ?? 0);
  };

  let before: Point | null = null;
  let gapFrom: number | null = null;
  const openGap = (at: number) => {
    gapFrom ??= at;
  };
  const closeGap = (at: number) => {
    if (gapFrom !== null && at > gapFrom) result.gaps.push([gapFrom / 1000, at / 1000]);
    gapFrom = null;
  };
  const step = (point: Point, at: number) => {
    // A step chart holds a value up to the next one, but not up to a gap: the held value is drawn out here.
    if (before?.live && !point.live) push(at / 1000, before);
    push(at / 1000, point);
    if (point.live) closeGap(at);
    else openGap(at);
    before = point;
  };

  let entering: Point | null = null;
  let started = false;
  for (const point of points) {
    if (point.at > now) break;
    if (point.at < from) {
      entering = point;
      continue;
    }
    if (!started) {
      started = true;
      if (entering) step(entering, from);
      else openGap(from);
    }
    step(point, point.at);
  }
  if (!started) {
    if (entering) step(entering, from);
    else openGap(from);
  }
  const last = before as Point | null;
  if (last) push(now / 1000, last);
  closeGap(now);
  return result;
}
