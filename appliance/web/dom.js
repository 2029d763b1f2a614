// Makes elements. Text from outside always becomes text, never markup.

/** @typedef {Node | string | number | null | undefined | false} Child */

/**
 * An element with attributes and children. `on...` attributes are listeners, `true` is an empty attribute, `false` and
 * `undefined` are none.
 *
 * @template {keyof HTMLElementTagNameMap} K
 * @param {K} tag
 * @param {Record<string, unknown> | null} attributes
 * @param {...(Child | Child[])} children
 * @returns {HTMLElementTagNameMap[K]}
 */
export function h(tag, attributes, ...children) {
  const element = document.createElement(tag);
  give(element, attributes);
  element.append(...nodes(children));
  return element;
}

const SVG = "http://www.w3.org/2000/svg";

/**
 * The same for drawings.
 *
 * @param {string} tag
 * @param {Record<string, unknown> | null} attributes
 * @param {...(Child | Child[])} children
 * @returns {SVGElement}
 */
export function s(tag, attributes, ...children) {
  const element = /** @type {SVGElement} */ (document.createElementNS(SVG, tag));
  give(element, attributes);
  element.append(...nodes(children));
  return element;
}

/**
 * @param {Element} element
 * @param {Record<string, unknown> | null} attributes
 */
function give(element, attributes) {
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (value === false || value === undefined || value === null) continue;
    if (typeof value === "function") {
      element.addEventListener(name.slice(2), /** @type {EventListener} */ (value));
    } else {
      element.setAttribute(name, value === true ? "" : String(value));
    }
  }
}

/**
 * @param {(Child | Child[])[]} children
 * @returns {(Node | string)[]}
 */
function nodes(children) {
  return children.flat().filter((it) => it !== null && it !== undefined && it !== false).map((it) => (it instanceof Node ? it : String(it)));
}

/**
 * Puts these in place of all that was inside.
 *
 * @param {Element} parent
 * @param {...(Child | Child[])} children
 */
export function fill(parent, ...children) {
  parent.replaceChildren(...nodes(children));
}

/**
 * A part of a screen that is drawn anew only when what it shows has changed, so that focus and fingers stay where they
 * are.
 *
 * @template T
 * @param {HTMLElement} element
 * @param {(value: T) => Child | Child[]} draw
 * @returns {HTMLElement & {show: (value: T) => void}}
 */
export function region(element, draw) {
  let shown = "";
  const show = (/** @type {T} */ value) => {
    const now = JSON.stringify(value) ?? "";
    if (now === shown) return;
    shown = now;
    fill(element, draw(value));
  };
  return Object.assign(element, { show });
}

let lastId = 0;

/**
 * A field with its label, hint and room for what is wrong with it.
 *
 * @param {string} label
 * @param {HTMLInputElement | HTMLSelectElement} input
 * @param {string} [hint]
 * @returns {{element: HTMLElement, input: HTMLInputElement | HTMLSelectElement, wrong: (text: string) => void}}
 */
export function field(label, input, hint) {
  lastId += 1;
  const id = `field-${lastId}`;
  input.id = id;
  const wrongText = h("p", { class: "wrong", id: `${id}-wrong`, hidden: true });
  const describedBy = [hint ? `${id}-hint` : "", `${id}-wrong`].filter(Boolean).join(" ");
  input.setAttribute("aria-describedby", describedBy);
  const element = h(
    "div",
    { class: "field" },
    h("label", { for: id }, label),
    hint ? h("p", { class: "hint", id: `${id}-hint` }, hint) : null,
    wrongText,
    input,
  );
  const wrong = (/** @type {string} */ text) => {
    wrongText.textContent = text;
    wrongText.hidden = !text;
    input.setAttribute("aria-invalid", text ? "true" : "false");
    if (text) input.focus();
  };
  input.addEventListener("input", () => {
    wrongText.hidden = true;
    input.setAttribute("aria-invalid", "false");
  });
  return { element, input, wrong };
}

/**
 * A box to tick.
 *
 * @param {string} label
 * @param {boolean} [checked]
 */
export function check(label, checked) {
  const input = h("input", { type: "checkbox", checked });
  return { element: h("label", { class: "check" }, input, h("span", null, label)), input };
}

/**
 * A form whose button tells what it is doing while it does it. What `send` throws is shown above the button.
 *
 * @param {{button: string, busy: string, danger?: boolean}} words
 * @param {Child[]} children
 * @param {() => Promise<void>} send
 */
export function form(words, children, send) {
  const button = h("button", { class: "main wide", type: "submit" }, words.button);
  const said = h("div", { role: "alert" });
  const element = h("form", { novalidate: true }, ...children, said, h("div", { class: "foot" }, button));
  element.addEventListener("submit", async (event) => {
    event.preventDefault();
    if (button.disabled) return;
    button.disabled = true;
    button.textContent = words.busy;
    fill(said);
    try {
      await send();
    } catch (error) {
      fill(said, problem(error));
      said.scrollIntoView({ block: "nearest" });
    }
    button.disabled = false;
    button.textContent = words.button;
  });
  return element;
}

/**
 * What went wrong, as a note. An error without text has been shown already.
 *
 * @param {unknown} error
 * @returns {Child}
 */
export function problem(error) {
  const text = error instanceof Error ? error.message : String(error);
  if (!text) return null;
  const more = error instanceof Error && Array.isArray(error.cause) ? error.cause : [];
  return h("div", { class: "note bad" }, h("p", null, text), more.map((line) => h("p", { class: "small" }, line)));
}
