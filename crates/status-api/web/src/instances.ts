/** The containers of each instance, in their slots. */

import { element, KeyedList, setAttribute, setText } from "./dom";
import { placeInSlots, type Placement, takesRoom } from "./slots";
import { duration } from "./words";
import type { ContainerSnapshot, InstanceSnapshot, Snapshot } from "./wire";

/** Beyond this many slots an instance is drawn in small cells without text. */
const NAMED_SLOTS_MAX = 16;
/** Beyond this many, drawing each slot says less than a number. */
const DRAWN_SLOTS_MAX = 400;

/** Each phase has its own sign, so that it can be told without colour. */
const SIGNS: Record<ContainerSnapshot["phase"], string> = {
  created: "◌",
  starting: "△",
  running: "●",
  frozen: "❄",
  stopping: "▽",
  exited: "✕",
};

export type Command = "cordon" | "uncordon" | "drain";

interface View {
  root: HTMLElement;
  name: HTMLElement;
  state: HTMLElement;
  reason: HTMLElement;
  used: HTMLElement;
  slots: HTMLElement;
  beside: HTMLElement;
  cordon: HTMLButtonElement;
  drain: HTMLButtonElement;
  placement: Placement;
  shown: string;
}

export class Instances {
  readonly #list: KeyedList<InstanceSnapshot, View>;
  #widths = new Map<string, number>();
  #tones: ReadonlyMap<string, string> = new Map();
  #now = 0;

  constructor(root: HTMLElement, command: (instance: string, command: Command) => void) {
    this.#list = new KeyedList(
      root,
      (instance) => instance.name,
      (instance) => create(instance.name, command),
      (view, instance) => this.#update(view, instance),
    );
  }

  show(snapshot: Snapshot, tones: ReadonlyMap<string, string>, now: number): void {
    this.#widths = new Map(snapshot.services.map((service) => [service.name, service.request.slots]));
    this.#tones = tones;
    this.#now = now;
    this.#list.show(snapshot.instances);
  }

  #update(view: View, instance: InstanceSnapshot): void {
    setText(view.state, instance.state);
    setAttribute(view.root, "data-state", instance.state);
    const age = duration(this.#now - Date.parse(instance.since));
    setText(view.reason, instance.state === "ready" ? "" : `for ${age}${instance.reason ? `: ${instance.reason}` : ""}`);
    setText(view.used, `${instance.used.slots} of ${instance.capacity.slots} slots used`);
    const ready = instance.state === "ready" || instance.state === "lost";
    setText(view.cordon, ready ? "Cordon" : "Uncordon");
    setAttribute(view.cordon, "data-command", ready ? "cordon" : "uncordon");
    view.drain.disabled = instance.state === "draining";

    const shown = JSON.stringify([instance.capacity, instance.containers, [...this.#tones]]);
    if (shown === view.shown) return;
    view.shown = shown;
    const capacity = instance.capacity.slots;
    if (instance.containers.length < instance.container_count || capacity > DRAWN_SLOTS_MAX) {
      view.slots.replaceChildren(element("p", { class: "count" }, `${instance.container_count} containers`));
      view.beside.replaceChildren();
      return;
    }
    const width = (service: string) => this.#widths.get(service) ?? 1;
    view.placement = placeInSlots(view.placement, instance.containers, width);
    view.slots.classList.toggle("small", capacity > NAMED_SLOTS_MAX);
    view.slots.style.setProperty("--columns", String(capacity > NAMED_SLOTS_MAX ? 16 : Math.max(1, Math.min(capacity, 4))));
    view.slots.replaceChildren(...this.#cells(view.placement, instance, width));
    view.beside.replaceChildren(
      ...instance.containers.filter(({ phase }) => !takesRoom(phase)).map((container) => this.#cell(container, 1, false)),
    );
  }

  #cells(placement: Placement, instance: InstanceSnapshot, width: (service: string) => number): HTMLElement[] {
    const starts = new Map<number, ContainerSnapshot>();
    for (const container of instance.containers) {
      const slot = placement.get(container.name);
      if (slot !== undefined) starts.set(slot, container);
    }
    const cells: HTMLElement[] = [];
    const end = Math.max(instance.capacity.slots, ...[...starts].map(([slot, { service }]) => slot + Math.max(1, width(service))));
    for (let slot = 0; slot < end; ) {
      const container = starts.get(slot);
      if (!container) {
        cells.push(element("li", { class: "slot empty" }, element("span", {}, "free")));
        slot += 1;
        continue;
      }
      const slots = Math.max(1, width(container.service));
      cells.push(this.#cell(container, slots, slot + slots > instance.capacity.slots));
      slot += slots;
    }
    return cells;
  }

  #cell(container: ContainerSnapshot, slots: number, over: boolean): HTMLElement {
    const what = `${container.phase}${container.outdated ? ", outdated" : ""}${over ? ", over capacity" : ""}`;
    const cell = element(
      "li",
      { class: `slot ${container.phase}`, title: `${container.name}: ${what}`, "data-over": over },
      element("i", { "aria-hidden": "true" }, SIGNS[container.phase]),
      element("b", {}, container.service),
      element("span", {}, what),
    );
    cell.style.setProperty("--tone", `var(${this.#tones.get(container.service) ?? "--tone-4a"})`);
    cell.style.setProperty("--span", String(slots));
    return cell;
  }
}

function create(name: string, command: (instance: string, command: Command) => void): View {
  const title = element("h3", {}, name);
  const state = element("span", { class: "badge" });
  const reason = element("p", { class: "reason" });
  const used = element("p", { class: "quiet" });
  const slots = element("ul", { class: "slots", "aria-label": `Slots of ${name}` });
  const beside = element("ul", { class: "beside", "aria-label": `Containers of ${name} that take no slot` });
  const cordon = element("button", { type: "button", "aria-label": `Cordon or uncordon ${name}` }, "Cordon");
  const drain = element("button", { type: "button", "aria-label": `Drain ${name}` }, "Drain");
  cordon.addEventListener("click", () => command(name, cordon.dataset["command"] === "uncordon" ? "uncordon" : "cordon"));
  drain.addEventListener("click", () => command(name, "drain"));
  const root = element(
    "article",
    { class: "instance" },
    element("header", {}, title, state),
    reason,
    slots,
    beside,
    element("footer", {}, used, cordon, drain),
  );
  return { root, name: title, state, reason, used, slots, beside, cordon, drain, placement: new Map(), shown: "" };
}
