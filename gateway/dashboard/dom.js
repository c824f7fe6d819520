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
 * What can have the focus carries `data-key`, or is found by its place and its words. Where it
 * stood at a place within itself, `data-at`, the new one is told of it by the event `frugal:at`.
 */
export function replaceKeepingFocus(element, node) {
  const held = element.contains(document.activeElement) ? document.activeElement : null;
  const find = held && finder(element, held);
  const at = held?.dataset.at;
  const open = new Set(
    [...element.querySelectorAll("details[open][data-key]")].map((each) => each.dataset.key),
  );
  element.replaceChildren(node);
  for (const details of element.querySelectorAll("details[data-key]")) {
    details.open ||= open.has(details.dataset.key);
  }
  const again = find?.();
  again?.focus({ preventScroll: true });
  if (at !== undefined) again?.dispatchEvent(new CustomEvent("frugal:at", { detail: at }));
}

/** Return what finds, in what takes its place, the element that has the focus. */
function finder(element, held) {
  const key = held.closest("[data-key]")?.dataset.key;
  if (key !== undefined) return () => element.querySelector(`[data-key="${CSS.escape(key)}"]`);
  const all = () => [...element.querySelectorAll("a[href], button, input, select, summary, [tabindex]")];
  const [place, words] = [all().indexOf(held), held.textContent];
  return () => {
    const found = all()[place];
    return found?.tagName === held.tagName && found.textContent === words ? found : null;
  };
}
