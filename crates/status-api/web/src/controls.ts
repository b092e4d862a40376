/** Playing with it: hold a demand, pause a service, cordon an instance. */

import { get, Refused, send } from "./api";
import { element, KeyedList, setText } from "./dom";
import type { DemandDocument } from "./wire";

/** Kept for this tab only, and sent to no other origin. */
const TOKEN_KEY = "force12-token";

interface View {
  root: HTMLElement;
  value: HTMLInputElement;
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
    const root = element(
      "form",
      {},
      element("label", { for: id }, `Demand of ${key}`),
      value,
      element("button", { type: "submit" }, "Hold"),
    );
    root.addEventListener("submit", (event) => {
      event.preventDefault();
      const containers = value.valueAsNumber;
      void this.command(`Demand of ${key} held at ${containers}`, "PUT", "/v1/demand", { demand: { [key]: containers } });
    });
    return { root, value };
  }
}
