/** The chart of the present: demand against what runs, as bars. */

import { element, KeyedList, setAttribute, setText } from "./dom";
import type { ServiceSnapshot, Snapshot } from "./wire";

/** Up to this many slots a bar is drawn in blocks, one for each. */
const BLOCKS_MAX = 24;

interface Bar {
  key: string;
  name: string;
  what: string;
  slots: number | null;
  /** On its way: drawn on top, hatched. */
  coming: number;
  tone: string;
}

interface BarView {
  root: HTMLElement;
  value: HTMLElement;
  solid: HTMLElement;
  coming: HTMLElement;
  what: HTMLElement;
  name: HTMLElement;
}

function barsOf(service: ServiceSnapshot, tone: string): Bar[] {
  const slots = service.request.slots;
  const running: Bar = {
    key: `${service.name} running`,
    name: service.name,
    what: "running",
    slots: service.running * slots,
    coming: service.starting * slots,
    tone,
  };
  if (service.kind === "fill") return [running];
  const demand = service.demand === null ? null : service.demand * slots;
  return [{ key: `${service.name} demand`, name: service.name, what: "demand", slots: demand, coming: 0, tone: "--demand" }, running];
}

export class NowChart {
  readonly #plot: HTMLElement;
  readonly #limit: HTMLElement;
  readonly #bars: KeyedList<Bar, BarView>;
  #top = 1;

  constructor(
    private readonly root: HTMLElement,
    private readonly limitText: HTMLElement,
  ) {
    this.#limit = element("div", { class: "limit" });
    const bars = element("div", { class: "bars" });
    this.#plot = element("div", { class: "now-plot" }, this.#limit, bars);
    root.replaceChildren(this.#plot);
    this.#bars = new KeyedList(bars, (bar) => bar.key, createBar, (view, bar) => this.#update(view, bar));
  }

  show(snapshot: Snapshot, tones: ReadonlyMap<string, string>): void {
    const bars = snapshot.services.flatMap((service) => barsOf(service, tones.get(service.name) ?? "--tone-4a"));
    const usable = snapshot.usable_capacity.slots;
    this.#top = Math.max(1, usable, ...bars.map((bar) => (bar.slots ?? 0) + bar.coming));
    this.#plot.classList.toggle("blocks", this.#top <= BLOCKS_MAX);
    this.#plot.style.setProperty("--top", String(this.#top));
    this.#limit.style.setProperty("--at", String(usable / this.#top));
    setText(this.limitText, `${usable} usable slots`);
    this.#bars.show(bars);
    const words = bars.map((bar) => `${bar.name} ${bar.what} ${bar.slots ?? "unknown"}`).join(", ");
    setAttribute(this.root, "aria-label", `Now, in slots: ${words}; usable ${usable}.`);
  }

  #update(view: BarView, bar: Bar): void {
    setText(view.value, bar.slots === null ? "?" : String(bar.slots));
    setText(view.what, bar.what);
    setText(view.name, bar.name);
    view.root.style.setProperty("--tone", `var(${bar.tone})`);
    view.root.classList.toggle("unknown", bar.slots === null);
    view.solid.style.setProperty("--part", String((bar.slots ?? 0) / this.#top));
    view.coming.style.setProperty("--part", String(bar.coming / this.#top));
  }
}

function createBar(): BarView {
  const value = element("b", { class: "bar-value" });
  const solid = element("div", { class: "bar-solid" });
  const coming = element("div", { class: "bar-coming" });
  const what = element("span");
  const name = element("small");
  const root = element(
    "div",
    { class: "bar" },
    element("div", { class: "bar-column" }, value, coming, solid),
    element("div", { class: "bar-label" }, what, name),
  );
  return { root, value, solid, coming, what, name };
}
