/** The chart of the last minutes: what runs, stacked to the capacity, and the demand as a line. */

import uPlot from "uplot";
import { element, setAttribute, setText } from "./dom";
import { columns, type Columns, type Trace } from "./series";
import type { ServiceSnapshot } from "./wire";

/** Tall enough to count nine slots by eye, low enough to leave the instances on the first screen. */
const HEIGHT_PX = 260;

const clock = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", second: "2-digit", hour12: false });

export class HistoryChart {
  windowMs: number;
  #plot: uPlot | null = null;
  #gaps: Columns["gaps"] = [];
  #shape = "";
  readonly #canvas: HTMLElement;
  readonly #legend: HTMLElement;

  constructor(
    private readonly root: HTMLElement,
    windowMs: number,
  ) {
    this.windowMs = windowMs;
    this.#canvas = element("div", { class: "plot", role: "img" });
    this.#legend = element("ul", { class: "legend" });
    root.replaceChildren(this.#canvas, this.#legend);
    new ResizeObserver(() => this.#resize()).observe(root);
    // The colours are read when the chart is made.
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
      this.#shape = "";
    });
  }

  show(trace: Trace, services: readonly ServiceSnapshot[], tones: ReadonlyMap<string, string>, now: number): void {
    const shape = services.map(({ name }) => `${name} ${tones.get(name) ?? ""}`).join("\n");
    if (shape !== this.#shape) {
      this.#shape = shape;
      this.#make(services, tones);
    }
    const from = now - this.windowMs;
    const data = columns(trace.points, services, from, now);
    const hadGaps = this.#gaps.length > 0;
    this.#gaps = data.gaps;
    if (this.#plot && hadGaps !== data.gaps.length > 0) this.#showLegend(this.#plot, services, tones);
    const top = Math.max(1, data.top);
    this.#plot?.batch(() => {
      // The tallest pile is drawn first, and each more important one over it.
      this.#plot?.setData([data.x, ...[...data.stacks].reverse(), data.usable, data.demand], false);
      this.#plot?.setScale("x", { min: from / 1000, max: now / 1000 });
      this.#plot?.setScale("y", { min: 0, max: top + Math.max(0.5, top * 0.06) });
    });
    setAttribute(this.#canvas, "aria-label", `The last ${this.windowMs / 1000} seconds; the table of services has the numbers of now.`);
  }

  #make(services: readonly ServiceSnapshot[], tones: ReadonlyMap<string, string>): void {
    this.#plot?.destroy();
    const style = getComputedStyle(document.documentElement);
    const colour = (name: string) => style.getPropertyValue(name).trim();
    const stepped = uPlot.paths.stepped?.({ align: 1 });
    if (!stepped) throw new Error("this build of uPlot has no stepped paths");
    const pile = (service: ServiceSnapshot): uPlot.Series => ({
      label: service.name,
      fill: colour(tones.get(service.name) ?? "--tone-4a"),
      width: 0,
      paths: stepped,
      points: { show: false },
    });
    const line = (label: string, stroke: string, width: number, dash?: number[]): uPlot.Series => ({
      label,
      stroke,
      width,
      paths: stepped,
      points: { show: false },
      ...(dash ? { dash } : {}),
    });
    const axis = {
      stroke: colour("--quiet"),
      grid: { stroke: colour("--grid"), width: 1 },
      ticks: { show: false },
      font: `12px ${style.fontFamily}`,
    };
    this.#plot = new uPlot(
      {
        width: this.#width(),
        height: HEIGHT_PX,
        legend: { show: false },
        cursor: { y: false, drag: { x: false, y: false }, points: { show: false } },
        scales: { x: { time: true, auto: false }, y: { auto: false } },
        axes: [
          { ...axis, size: 30, space: 90, values: (_, splits) => splits.map((at) => clock.format(at * 1000)) },
          { ...axis, size: 36, space: 45, incrs: [1, 2, 3, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 100_000] },
        ],
        series: [
          {},
          ...[...services].reverse().map(pile),
          line("usable slots", colour("--quiet"), 1, [4, 4]),
          line("demand", colour("--demand"), 2.5),
        ],
        hooks: {
          drawAxes: [(plot) => this.#shadeGaps(plot, colour("--gap"))],
          setLegend: [(plot) => this.#showLegend(plot, services, tones)],
        },
      },
      [[]],
      this.#canvas,
    );
    this.#showLegend(this.#plot, services, tones);
  }

  #shadeGaps(plot: uPlot, colour: string): void {
    const { ctx, bbox } = plot;
    ctx.save();
    ctx.fillStyle = colour;
    for (const [from, to] of this.#gaps) {
      const left = Math.max(bbox.left, plot.valToPos(from, "x", true));
      const right = Math.min(bbox.left + bbox.width, plot.valToPos(to, "x", true));
      if (right > left) ctx.fillRect(left, bbox.top, right - left, bbox.height);
    }
    ctx.restore();
  }

  /** What stands for what; with the values under the pointer while it is over the chart. */
  #showLegend(plot: uPlot, services: readonly ServiceSnapshot[], tones: ReadonlyMap<string, string>): void {
    const at = plot.cursor.idx ?? null;
    const value = (series: number) => (at === null ? undefined : plot.data[series]?.[at]);
    const entries: [string, string, string][] = services.map((service, index) => {
      // Series are drawn from the top of the pile, so the last service is the first series.
      const own = value(services.length - index);
      const below = index === 0 ? 0 : value(services.length - index + 1);
      const text = own === undefined ? "" : own === null ? "nothing known" : String(own - (below ?? 0));
      return [service.name, `var(${tones.get(service.name) ?? ""})`, text];
    });
    const last = value(services.length + 2);
    entries.push(["demand", "var(--demand)", last === undefined ? "" : last === null ? "unknown" : String(last)]);
    if (this.#gaps.length > 0) entries.push(["nothing known", "var(--gap)", ""]);
    while (this.#legend.children.length > entries.length) this.#legend.lastElementChild?.remove();
    entries.forEach(([name, tone, text], index) => {
      let item = this.#legend.children[index];
      if (!item) {
        item = element("li", {}, element("i"), element("span"));
        this.#legend.append(item);
      }
      const [mark, label] = item.children;
      (mark as HTMLElement).style.setProperty("--tone", tone);
      mark?.classList.toggle("line", name === "demand");
      if (label) setText(label, text === "" ? name : `${name}: ${text}`);
    });
  }

  #width(): number {
    return Math.max(200, this.root.clientWidth);
  }

  #resize(): void {
    this.#plot?.setSize({ width: this.#width(), height: HEIGHT_PX });
  }
}
