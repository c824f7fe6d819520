// What several pages are made of: states, tiles, tables, dialogs, downloads.

import { h, freshId, refill } from "./dom.js";
import { change } from "./format.js";
import { icon } from "./icons.js";

/** What stands where a page loads. */
export function waiting() {
  const bars = Array.from({ length: 6 }, () => h("div", { class: "ghost" }));
  return h("div", { class: "waiting", role: "status" }, h("span", { class: "unseen" }, "Loading"), bars);
}

/** What stands where loading failed, with a way to try again. */
export function failure(error, again) {
  return h(
    "div", { class: "state panel", role: "alert" },
    h("h2", {}, "This could not be loaded"),
    h("p", {}, error.message),
    h("button", { type: "button", class: "primary", "data-key": "again", onclick: again }, "Try again"),
  );
}

/** What stands where there is nothing to show. */
export function empty(title, ...text) {
  return h("div", { class: "state" }, h("h3", {}, title), text.map((t) => h("p", {}, t)));
}

/** A part of a page under a heading, with its tools. */
export function section(title, { note, tools, name } = {}, ...content) {
  const id = freshId("part");
  return h(
    "section", { class: `part ${name ?? ""}`, "aria-labelledby": id },
    h("div", { class: "part-head" },
      h("div", {}, h("h2", { id }, title), note && h("p", { class: "note" }, note)),
      tools && h("div", { class: "tools" }, tools)),
    content,
  );
}

/** A word about a state, in a colour that only repeats it. Tones: good, warn, bad, plain. */
export const badge = (text, tone = "plain") => h("span", { class: `badge ${tone}` }, text);

/** One number with its name, and how it was in the period before. */
export function tile({ name, value, exact, detail, now, before, beforeText, better }) {
  return h(
    "div", { class: "tile" },
    h("dt", {}, name),
    h("dd", { class: "tile-value", title: exact }, value),
    detail && h("dd", { class: "tile-detail" }, detail),
    beforeText !== undefined && h("dd", { class: "tile-before" }, delta(now, before, better), ` was ${beforeText}`),
  );
}

/** A change against the period before; `better` is "up" or "down" where one of them is. */
function delta(now, before, better) {
  const text = change(now, before);
  if (text === null) return null;
  const direction = text.startsWith("−") ? "down" : text === "±0%" ? "same" : "up";
  const tone = !better || direction === "same" ? "plain" : direction === better ? "good" : "bad";
  return h("span", { class: `delta ${tone}` }, text);
}

const sorted = new Map(); // the order of each table, kept while the page lives

/**
 * A table that scrolls by itself where it is wide. Columns are `{name, text, cell?, sort?, number?}`:
 * `text` makes a row's plain words, `cell` a node where words are not enough, `sort` what to order by.
 */
export function dataTable({ id, caption, columns, rows, rowLink, limit }) {
  const holder = h("div", { class: "table-holder", role: "region", tabindex: "0", "aria-label": caption, "data-key": `table-${id}` });
  const draw = () => replaceTable(holder, { id, caption, columns, rows, rowLink, limit }, draw);
  draw();
  return holder;
}

function replaceTable(holder, { id, caption, columns, rows, rowLink, limit }, redraw) {
  const order = sorted.get(id);
  const shown = order ? inOrder(rows, columns[order.column], order.isDown) : rows;
  const heads = columns.map((column, index) => head(id, column, index, order, () => {
    redraw();
    holder.querySelector(`[data-key="sort-${id}-${index}"]`)?.focus();
  }));
  const body = shown.slice(0, limit ?? Infinity).map((row) =>
    h("tr", { class: rowLink ? "linked" : undefined }, columns.map((column, index) => tableCell(column, row, index))));
  refill(holder, h("table", {}, h("caption", { class: "unseen" }, caption), h("thead", {}, h("tr", {}, heads)), h("tbody", {}, body)));
}

function tableCell(column, row, index) {
  const content = column.cell ? column.cell(row) : column.text(row);
  const props = { class: column.number ? "number" : undefined, title: column.exact?.(row) };
  return index === 0 ? h("th", { scope: "row", ...props }, content) : h("td", props, content);
}

function head(id, column, index, order, redraw) {
  const props = { scope: "col", class: column.number ? "number" : undefined };
  if (!column.sort) return h("th", props, column.name);
  const isThis = order?.column === index;
  const turn = () => {
    sorted.set(id, { column: index, isDown: isThis ? !order.isDown : Boolean(column.number) });
    redraw();
  };
  const direction = order?.isDown ? "descending" : "ascending";
  return h("th", { ...props, "aria-sort": isThis ? direction : "none" },
    h("button", { type: "button", class: `sort ${isThis ? direction : ""}`, "data-key": `sort-${id}-${index}`, onclick: turn }, column.name));
}

function inOrder(rows, column, isDown) {
  const sign = isDown ? -1 : 1;
  return [...rows].sort((a, b) => {
    const [x, y] = [column.sort(a), column.sort(b)];
    if (x === y) return 0;
    if (x === null || x === undefined) return 1;
    if (y === null || y === undefined) return -1;
    return (x < y ? -1 : 1) * sign;
  });
}

/** A button that saves the rows shown as a file that spreadsheets read. */
export function csvButton(file, columns, rows) {
  return h("button", {
    type: "button", "data-key": `csv-${file}`, disabled: rows.length === 0,
    onclick: () => save(`${file}.csv`, csv(columns, rows)),
  }, icon("download"), "Export CSV");
}

/** Rows as RFC 4180 has them; what a spreadsheet would run as a formula is made text. */
export function csv(columns, rows) {
  const cell = (value) => {
    const text = value === null || value === undefined ? "" : String(value);
    const safe = typeof value === "string" && /^[=+\-@\t\r]/.test(text) ? `'${text}` : text;
    return /[",\r\n]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
  };
  const lines = [columns.map((c) => c.name), ...rows.map((row) => columns.map((c) => (c.raw ?? c.text)(row)))];
  return lines.map((line) => line.map(cell).join(",")).join("\r\n") + "\r\n";
}

/** Give the browser a file to keep. */
export function save(name, text) {
  const url = URL.createObjectURL(new Blob([text], { type: "text/csv;charset=utf-8" }));
  const link = h("a", { href: url, download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
}

/** Ask before something is done; resolves to whether it was agreed to. */
export function agreed({ title, text, yes, tone = "primary" }) {
  const id = freshId("ask");
  return new Promise((resolve) => {
    const answer = (value) => () => dialog.close(value);
    const dialog = h(
      "dialog", { class: "panel ask", "aria-labelledby": id, onclose: () => {
        resolve(dialog.returnValue === "yes");
        dialog.remove();
      } },
      h("h2", { id }, title), h("p", {}, text),
      h("div", { class: "buttons" },
        h("button", { type: "button", onclick: answer("no") }, "Cancel"),
        h("button", { type: "button", class: tone, onclick: answer("yes") }, yes)),
    );
    document.body.append(dialog);
    dialog.showModal();
  });
}

/** A list of names and values. */
export function facts(pairs) {
  return h("dl", { class: "facts" }, pairs.filter(Boolean).map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, value))));
}
