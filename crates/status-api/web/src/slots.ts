/** Which container is drawn in which slot. Pure. */

import type { ContainerSnapshot, Phase } from "./wire";

/** Whether a container in this phase takes its request. */
export function takesRoom(phase: Phase): boolean {
  return phase === "starting" || phase === "running" || phase === "stopping";
}

/** The first slot of each container, by container name. */
export type Placement = ReadonlyMap<string, number>;

/**
 * Gives each container that takes room its slots, side by side. A container keeps its place for as long as it
 * is there, so that nothing moves on the page but what changes. Whatever finds no place within the capacity
 * comes after it: the page draws what is, not what should be.
 */
export function placeInSlots(
  previous: Placement,
  containers: readonly Pick<ContainerSnapshot, "name" | "service" | "phase">[],
  slotsOf: (service: string) => number,
): Placement {
  const taken = new Set<number>();
  const placed = new Map<string, number>();
  const isFree = (from: number, width: number) => {
    for (let slot = from; slot < from + width; slot += 1) if (taken.has(slot)) return false;
    return true;
  };
  const take = (name: string, from: number, width: number) => {
    for (let slot = from; slot < from + width; slot += 1) taken.add(slot);
    placed.set(name, from);
  };
  const room = containers.filter((container) => takesRoom(container.phase));
  const width = (service: string) => Math.max(1, slotsOf(service));
  for (const { name, service } of room) {
    const before = previous.get(name);
    if (before !== undefined && isFree(before, width(service))) take(name, before, width(service));
  }
  for (const { name, service } of room) {
    if (placed.has(name)) continue;
    let from = 0;
    while (!isFree(from, width(service))) from += 1;
    take(name, from, width(service));
  }
  return placed;
}
