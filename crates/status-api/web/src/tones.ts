/** Which colour stands for which service. */

import type { ServiceSnapshot } from "./wire";

/** Colours for this many priorities are kept apart; what comes after shares the last. */
const RANKS = 4;

/**
 * The name of the custom property with the colour of each service: a hue for each priority, the most
 * important first, in two shades that alternate among services of one priority.
 */
export function tones(services: readonly Pick<ServiceSnapshot, "name" | "priority">[]): Map<string, string> {
  const priorities = [...new Set(services.map((service) => service.priority))].sort((a, b) => a - b);
  const siblings = new Map<number, number>();
  const result = new Map<string, string>();
  for (const { name, priority } of services) {
    const rank = Math.min(priorities.indexOf(priority), RANKS - 1) + 1;
    const sibling = siblings.get(priority) ?? 0;
    siblings.set(priority, sibling + 1);
    result.set(name, `--tone-${rank}${sibling % 2 === 0 ? "a" : "b"}`);
  }
  return result;
}
