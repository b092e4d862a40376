/** Playing with it: hold a demand, change how it is generated, pause a service, cordon an instance. */

import { get, Refused, send } from "./api";
import { element, KeyedList, setText } from "./dom";
import type { DemandDocument, Generator } from "./wire";

/** Those that need nothing beside these settings; a trace brings its own values. */
const PATTERNS = ["walk", "uniform", "sine", "spike", "poisson"];

/** Kept for this tab only, and sent to no other origin. */
const TOKEN_KEY = "force12-token";

interface View {
  root: HTMLElement;
}

export class Controls {
  readonly #token: HTMLInputElement;
  readonly #result: HTMLElement;
  readonly #demands: HTMLElement;
  readonly #list: KeyedList<string, View>;

  constructor(root: HTMLElement) {
    this.#token = element("input", { type: "password", id: "token", autocomplete: "off", spellcheck: "false" });
    this.#token.value = sessionStorage.getItem(TOKEN_KEY) ?? "";
    this.#token.addEventListener("input", () => sessionStorage.setItem(TOKEN_KEY, this.#token.value.trim()));
    this.#result = element("p", { class: "result", role: "status" });
    const rows = element("div", { class: "demands" });
    const release = element("button", { type: "button" }, "Back to the generator");
    release.addEventListener("click", () => void this.command("Demand follows the generator again", "DELETE", "/v1/demand"));
    this.#demands = element("div", { hidden: true }, rows, release);
    this.#list = new KeyedList(rows, (key) => key, (key) => this.#row(key), () => {});
    const credentials = element(
      "form",
      { class: "token" },
      element(
        "label",
        { for: "token" },
        "Operator's token",
        element("span", { class: "quiet" }, " (scripts/demo prints where it is; not needed where none is set)"),
      ),
      this.#token,
    );
    credentials.addEventListener("submit", (event) => event.preventDefault());
    root.replaceChildren(
      credentials,
      this.#demands,
      this.#result,
    );
  }

  /** Shows the demands that can be held, if the demand source is one that can be played with. */
  async load(): Promise<void> {
    try {
      const { demand } = await get<DemandDocument>("/v1/demand");
      this.#list.show(Object.keys(demand).sort());
      this.#demands.hidden = false;
    } catch (error) {
      if (!(error instanceof Refused)) throw error;
      if (error.status !== 404) setText(this.#result, `Demand can't be played with: ${error.message}`);
    }
  }

  /** Sends a command and says what became of it. */
  async command(done: string, method: "POST" | "PUT" | "DELETE", path: string, body?: unknown): Promise<void> {
    this.#say("", false);
    try {
      await send(method, path, this.#token.value.trim(), body);
      this.#say(`${done}.`, false);
    } catch (error) {
      if (!(error instanceof Refused)) throw error;
      if (error.status === 401) this.#token.focus();
      const why = error.status !== 401 ? error.message : this.#token.value === "" ? "this needs the operator's token" : "this is not the operator's token";
      this.#say(`Not done: ${why}.`, true);
    }
  }

  #say(text: string, bad: boolean): void {
    setText(this.#result, text);
    this.#result.classList.toggle("bad", bad);
  }

  #row(key: string): View {
    const id = `demand-${key}`;
    const value = element("input", { type: "number", id, min: "0", max: "1000000", step: "1", value: "7", required: true });
    const hold = element(
      "form",
      {},
      element("label", { for: id }, `Demand of ${key}`),
      value,
      element("button", { type: "submit" }, "Hold"),
    );
    hold.addEventListener("submit", (event) => {
      event.preventDefault();
      const containers = value.valueAsNumber;
      void this.command(`Demand of ${key} held at ${containers}`, "PUT", "/v1/demand", { demand: { [key]: containers } });
    });
    return { root: element("div", {}, hold, this.#generator(key)) };
  }

  /** The settings are asked for each time that they are unfolded: someone else may have changed them. */
  #generator(key: string): HTMLElement {
    const path = `/v1/generator?key=${encodeURIComponent(key)}`;
    const pattern = element("select", {});
    const number = (min: string, max: string) => element("input", { type: "number", min, max, step: "1", required: true });
    const [min, max, interval] = [number("0", "1000000"), number("0", "1000000"), number("10", "86400000")];
    const fields = element(
      "fieldset",
      { disabled: true },
      element("label", {}, "Pattern", pattern),
      element("label", {}, "From", min),
      element("label", {}, "To", max),
      element("label", {}, "Step in ms", interval),
      element("button", { type: "submit" }, "Generate"),
    );
    const form = element("form", { class: "generator" }, fields);
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      void this.command(`${key} is generated anew; a held demand stays held`, "PUT", path, {
        pattern: pattern.value,
        min: min.valueAsNumber,
        max: max.valueAsNumber,
        interval_ms: interval.valueAsNumber,
      });
    });
    const fold = element("details", {}, element("summary", {}, `How ${key} is generated`), form);
    fold.addEventListener("toggle", () => {
      if (fold.open) void load();
    });
    const load = async () => {
      fields.disabled = true;
      try {
        const settings = await get<Generator>(path);
        const patterns = PATTERNS.includes(settings.pattern) ? PATTERNS : [settings.pattern, ...PATTERNS];
        pattern.replaceChildren(...patterns.map((name) => element("option", { selected: name === settings.pattern }, name)));
        min.valueAsNumber = settings.min;
        max.valueAsNumber = settings.max;
        interval.valueAsNumber = settings.interval_ms;
        fields.disabled = false;
      } catch (error) {
        if (!(error instanceof Refused)) throw error;
        this.#say(`How ${key} is generated is not known: ${error.message}`, true);
      }
    };
    return fold;
  }
}
