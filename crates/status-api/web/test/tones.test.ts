import { expect, it } from "vitest";
import { tones } from "../src/tones";

it("priorities have hues, siblings have shades", () => {
  const services = [
    { name: "web", priority: 1 },
    { name: "api", priority: 1 },
    { name: "batch", priority: 5 },
    { name: "x", priority: 6 },
    { name: "y", priority: 7 },
    { name: "z", priority: 8 },
  ];
  expect([...tones(services).values()]).toEqual([
    "--tone-1a",
    "--tone-1b",
    "--tone-2a",
    "--tone-3a",
    "--tone-4a",
    "--tone-4a",
  ]);
});
