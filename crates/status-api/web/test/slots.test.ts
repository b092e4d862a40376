import { expect, it } from "vitest";
import { placeInSlots } from "../src/slots";
import type { Phase } from "../src/wire";

const container = (name: string, phase: Phase = "running", service = "a") => ({ name, service, phase });
const one = () => 1;

it("a container keeps its slot while others come and go", () => {
  const first = placeInSlots(new Map(), [container("x"), container("y"), container("z")], one);
  expect([...first]).toEqual([["x", 0], ["y", 1], ["z", 2]]);
  const second = placeInSlots(first, [container("a"), container("y", "stopping"), container("z")], one);
  expect([second.get("a"), second.get("y"), second.get("z")]).toEqual([0, 1, 2]);
});

it("what takes no room takes no slot", () => {
  const placed = placeInSlots(
    new Map(),
    [container("w", "created"), container("f", "frozen"), container("e", "exited"), container("s", "starting")],
    one,
  );
  expect([...placed]).toEqual([["s", 0]]);
});

it("wide requests take neighbouring slots, and an overfull instance is drawn overfull", () => {
  const width = (service: string) => (service === "big" ? 2 : 1);
  const before = new Map([["x", 1]]);
  const placed = placeInSlots(before, [container("b", "running", "big"), container("x"), container("y")], width);
  expect([placed.get("x"), placed.get("b"), placed.get("y")]).toEqual([1, 2, 0]);
});

it("two that claim the same slot after a change of width do not share it", () => {
  const placed = placeInSlots(new Map([["x", 0], ["y", 1]]), [container("x", "running", "big"), container("y")], () => 2);
  expect(placed.get("x")).toBe(0);
  expect(placed.get("y")).toBe(2);
});
