/** The little that the page needs to build and update elements without losing focus or place. */

type Attributes = Record<string, string | boolean>;

/** An element with attributes and children; `true` sets an attribute without a value, `false` leaves it out. */
export function element<Name extends keyof HTMLElementTagNameMap>(
  name: Name,
  attributes: Attributes = {},
  ...children: (Node | string)[]
): HTMLElementTagNameMap[Name] {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (value !== false) made.setAttribute(key, value === true ? "" : value);
  }
  made.append(...children);
  return made;
}

/** The element of the page with this id; its absence is a mistake in index.html. */
export function byId(id: string): HTMLElement {
  const found = document.getElementById(id);
  if (!found) throw new Error(`index.html has no element with the id ${id}`);
  return found;
}

/** Sets text only where it differs: an unchanged live region is not read out again. */
export function setText(target: Element, text: string): void {
  if (target.textContent !== text) target.textContent = text;
}

/** Sets or removes an attribute, only where it differs. */
export function setAttribute(target: Element, name: string, value: string | null): void {
  if (value === null) target.removeAttribute(name);
  else if (target.getAttribute(name) !== value) target.setAttribute(name, value);
}

/** One child of `parent` for each item, kept by key: a button keeps its focus while numbers change around it. */
export class KeyedList<Item, View extends { root: HTMLElement }> {
  readonly #views = new Map<string, View>();

  constructor(
    private readonly parent: HTMLElement,
    private readonly key: (item: Item) => string,
    private readonly create: (item: Item) => View,
    private readonly update: (view: View, item: Item) => void,
  ) {}

  show(items: readonly Item[]): void {
    const wanted = new Set(items.map(this.key));
    for (const [key, view] of this.#views) {
      if (!wanted.has(key)) {
        view.root.remove();
        this.#views.delete(key);
      }
    }
    items.forEach((item, at) => {
      const key = this.key(item);
      let view = this.#views.get(key);
      if (!view) {
        view = this.create(item);
        this.#views.set(key, view);
      }
      if (this.parent.children[at] !== view.root) {
        this.parent.insertBefore(view.root, this.parent.children[at] ?? null);
      }
      this.update(view, item);
    });
  }
}
