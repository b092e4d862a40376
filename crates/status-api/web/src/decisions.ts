/** The latest decisions in sentences. */

import { get, Refused } from "./api";
import { element, KeyedList, setAttribute, setText } from "./dom";
import { actionWords, changesWhatRuns, sentence } from "./words";
import type { Decision } from "./wire";

/** As many as people read; `GET /v1/decisions` has the others. */
const SHOWN = 8;
/** Asked for, since those that only tidy up are not shown. */
const ASKED = 50;
/** A decision may start and stop hundreds. */
const ACTIONS_SHOWN_MAX = 6;
/** Decisions follow each other within milliseconds; they are asked for once in this time. */
const INTERVAL_MS = 1_000;

const clock = new Intl.DateTimeFormat(undefined, {
  hour: "2-digit",
  minute: "2-digit",
  second: "2-digit",
  fractionalSecondDigits: 1,
  hour12: false,
});

interface View {
  root: HTMLElement;
  text: HTMLElement;
  actions: HTMLElement;
  shown: string;
}

export class Decisions {
  readonly #list: KeyedList<Decision, View>;
  #wanted = false;
  #busy = false;

  constructor(
    list: HTMLElement,
    private readonly trouble: HTMLElement,
  ) {
    this.#list = new KeyedList(
      list,
      (decision) => `${decision.epoch}:${decision.sequence}`,
      create,
      update,
    );
    setInterval(() => void this.#load(), INTERVAL_MS);
  }

  /** Something has changed, so there may be a new decision, or a new outcome of an old one. */
  changed(): void {
    this.#wanted = true;
  }

  async #load(): Promise<void> {
    if (!this.#wanted || this.#busy || document.hidden) return;
    this.#wanted = false;
    this.#busy = true;
    try {
      const { decisions } = await get<{ decisions: Decision[] }>(`/v1/decisions?limit=${ASKED}`);
      const shown = decisions.filter(changesWhatRuns).slice(0, SHOWN);
      this.#list.show(shown);
      setText(this.trouble, shown.length === 0 ? "None lately." : "");
    } catch (error) {
      if (!(error instanceof Refused)) throw error;
      setText(this.trouble, `Not up to date: ${error.message}`);
      this.#wanted = true;
    } finally {
      this.#busy = false;
    }
  }
}

function create(decision: Decision): View {
  const time = element("time", { datetime: decision.decided_at }, clock.format(Date.parse(decision.decided_at)));
  const text = element("p");
  const actions = element("ul");
  return { root: element("li", {}, time, element("div", {}, text, actions)), text, actions, shown: "" };
}

function update(view: View, decision: Decision): void {
  const shown = JSON.stringify([decision.summary, decision.actions, decision.not_done]);
  if (shown === view.shown) return;
  view.shown = shown;
  setText(view.text, sentence(decision.summary, decision.inputs.map(({ service }) => service)));
  const left = decision.actions.length - ACTIONS_SHOWN_MAX;
  view.actions.replaceChildren(
    ...decision.actions.slice(0, ACTIONS_SHOWN_MAX).map((action) => {
      const line = element("li", {}, actionWords(action));
      setAttribute(line, "data-outcome", action.outcome);
      return line;
    }),
    ...(left > 0 ? [element("li", {}, `And ${left} more.`)] : []),
    // A decision to do nothing says why in its summary already.
    ...decision.not_done
      .filter(({ words }) => words !== decision.summary)
      .map(({ words }) => element("li", { "data-outcome": "not_done" }, `Not done: ${words}.`)),
  );
}
