// Makes elements. Whatever comes from outside goes in as text: there is no way to pass markup.

const SVG = "http://www.w3.org/2000/svg";

/**
 * Make an element. `props` are attributes, `on…` listeners and `vars`, custom CSS properties
 * (set through the object model, which a strict style policy allows).
 */
export function h(tag, props, ...children) {
  return fill(document.createElement(tag), props, children);
}

/** Make an SVG element, in the same way. */
export function s(tag, props, ...children) {
  return fill(document.createElementNS(SVG, tag), props, children);
}

function fill(element, props, children) {
  for (const [name, value] of Object.entries(props ?? {})) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "vars") setVars(element, value);
    else if (name === "value" || name === "checked" || name === "selected") element[name] = value;
    else element.setAttribute(name, value === true ? "" : String(value));
  }
  element.append(...flat(children));
  return element;
}

function setVars(element, vars) {
  for (const [name, value] of Object.entries(vars)) element.style.setProperty(`--${name}`, value);
}

function flat(children) {
  return children.flat(Infinity).filter((c) => c !== undefined && c !== null && c !== false);
}

/** Put `children` in the place of what an element holds. */
export function refill(element, ...children) {
  element.replaceChildren(...flat(children));
  return element;
}

let made = 0;

/** Return an id that no other element has. */
export function freshId(prefix) {
  made += 1;
  return `${prefix}-${made}`;
}

/**
 * Put another node in the place of an element's content, and the focus back where it was.
 * What can have the focus across a refresh carries `data-key`; if it stood at a place within
 * itself, `data-at`, the new one is told of it by the event `frugal:at`.
 */
export function replaceKeepingFocus(element, node) {
  const held = document.activeElement;
  const key = element.contains(held) ? held.closest("[data-key]")?.dataset.key : undefined;
  const at = key === undefined ? undefined : held.dataset.at;
  const open = new Set(
    [...element.querySelectorAll("details[open][data-key]")].map((each) => each.dataset.key),
  );
  element.replaceChildren(node);
  for (const details of element.querySelectorAll("details[data-key]")) {
    details.open ||= open.has(details.dataset.key);
  }
  if (key === undefined) return;
  const again = element.querySelector(`[data-key="${CSS.escape(key)}"]`);
  again?.focus({ preventScroll: true });
  if (at !== undefined) again?.dispatchEvent(new CustomEvent("frugal:at", { detail: at }));
}
