// A text area with line numbers: plain, so that browsers, screen readers and habits all know it.

import { h, refill } from "../dom.js";

/** Return an editor: its node, `value`, `replace`, `mark` for lines with problems, `goTo` a line. */
export function editor(text, { readOnly, onEdit }) {
  const gutter = h("div", { class: "gutter", "aria-hidden": "true" });
  const area = h("textarea", {
    value: text, readonly: readOnly, spellcheck: "false", autocapitalize: "off", autocomplete: "off", wrap: "off",
    "aria-label": "Policy as YAML", "aria-describedby": "editor-keys", oninput: edited, onscroll: follow, onkeydown: indent,
  });
  const node = h("div", {}, h("div", { class: "editor" }, gutter, area),
    h("p", { class: "note", id: "editor-keys" }, readOnly ? "To read only." : "Tab indents; Escape, then Tab, leaves."));
  let marked = new Set();
  let mayLeave = false;

  function number() {
    const lines = area.value.split("\n").length;
    refill(gutter, Array.from({ length: lines }, (_, index) =>
      [marked.has(index + 1) ? h("span", { class: "bad" }, `● ${index + 1}`) : String(index + 1), "\n"]));
    follow();
  }

  function edited() {
    number();
    onEdit(area.value);
  }

  function follow() {
    gutter.scrollTop = area.scrollTop;
  }

  function indent(event) {
    if (event.key === "Escape") mayLeave = true;
    else if (event.key !== "Tab") mayLeave = false;
    else if (!mayLeave && !event.shiftKey && !readOnly) {
      event.preventDefault();
      area.setRangeText("  ", area.selectionStart, area.selectionEnd, "end");
      edited();
    }
  }

  number();
  return {
    node,
    value: () => area.value,
    replace(text) {
      area.value = text;
      edited();
    },
    mark(problems) {
      marked = new Set(problems.map((each) => each.line));
      number();
    },
    goTo(line, column) {
      const lines = area.value.split("\n");
      const before = lines.slice(0, Math.max(0, (line ?? 1) - 1)).reduce((sum, each) => sum + each.length + 1, 0);
      const at = before + Math.max(0, (column ?? 1) - 1);
      area.focus();
      area.setSelectionRange(at, before + (lines[(line ?? 1) - 1]?.length ?? 0));
      area.scrollTop = Math.max(0, (line - 6) * parseFloat(getComputedStyle(area).lineHeight));
    },
  };
}
