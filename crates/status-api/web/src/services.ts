/** The table of services. */

import { element, KeyedList, setAttribute, setText } from "./dom";
import { blockedWords, byWeight, workWords } from "./words";
import type { ServiceSnapshot, Snapshot } from "./wire";

const COLUMNS = ["Priority", "Demand", "Target", "Running", "Starting", "Stopping", "Frozen", "Unmet"] as const;

interface View {
  root: HTMLElement;
  name: HTMLElement;
  cells: HTMLElement[];
  note: HTMLElement;
  pause: HTMLButtonElement;
}

export class Services {
  readonly #list: KeyedList<ServiceSnapshot, View>;
  #tones: ReadonlyMap<string, string> = new Map();

  constructor(table: HTMLElement, command: (service: string, command: "pause" | "resume") => void) {
    const body = element("tbody");
    const head = ["Service", ...COLUMNS, "Remarks", "Control"].map((text) => element("th", { scope: "col" }, text));
    table.replaceChildren(element("thead", {}, element("tr", {}, ...head)), body);
    this.#list = new KeyedList(
      body,
      (service) => service.name,
      (service) => create(service.name, command),
      (view, service) => this.#update(view, service),
    );
  }

  show(snapshot: Snapshot, tones: ReadonlyMap<string, string>): void {
    this.#tones = tones;
    this.#list.show(snapshot.services);
  }

  #update(view: View, service: ServiceSnapshot): void {
    const fill = service.kind === "fill";
    const demand = fill ? "fills" : `${service.demand ?? "unknown"}${service.freshness === "stale" ? " (stale)" : ""}`;
    const values = [
      service.priority,
      demand,
      fill ? "–" : (service.target ?? "unknown"),
      service.unhealthy > 0 ? `${service.running} (${service.unhealthy} unhealthy)` : service.running,
      service.starting,
      service.stopping,
      service.standby > 0 ? `${service.frozen} (${service.standby} standby)` : service.frozen,
      service.unmet,
    ];
    values.forEach((value, at) => {
      const cell = view.cells[at];
      if (cell) setText(cell, String(value));
    });
    view.name.style.setProperty("--tone", `var(${this.#tones.get(service.name) ?? "--tone-4a"})`);
    const notes = byWeight(service.limited_by).map(blockedWords);
    if (service.paused && !service.limited_by.includes("paused")) notes.unshift("paused by the operator");
    if (service.outdated > 0) notes.push(`${service.outdated} of an older generation`);
    if (service.reason !== undefined) notes.push(service.reason);
    const work = workWords(service);
    if (work !== "") notes.push(work);
    setText(view.note, notes.join("; "));
    setText(view.pause, service.paused ? "Resume" : "Pause");
    setAttribute(view.pause, "data-command", service.paused ? "resume" : "pause");
  }
}

function create(service: string, command: (service: string, command: "pause" | "resume") => void): View {
  const name = element("th", { scope: "row" }, element("i", { "aria-hidden": "true" }), service);
  const cells = COLUMNS.map((column) => element("td", { "data-column": column }));
  const note = element("td", { class: "note", "data-column": "Remarks" });
  const pause = element("button", { type: "button", "aria-label": `Pause or resume ${service}` }, "Pause");
  pause.addEventListener("click", () => command(service, pause.dataset["command"] === "resume" ? "resume" : "pause"));
  const root = element("tr", {}, name, ...cells, note, element("td", { "data-column": "Control" }, pause));
  return { root, name, cells, note, pause };
}
