// Policy: what is in force, and the way from an edited text to one that is: check, plan, apply.

import { get, post } from "../api.js";
import { h, refill } from "../dom.js";
import { count, dayAndSecond } from "../format.js";
import { agreed, badge, section } from "../parts.js";
import { editor } from "./policy_editor.js";
import { planned } from "./policy_plan.js";

export const isLive = false; // nobody's typing is thrown away
export const hasRange = false;

let done = null; // what was just done, told once the page is drawn again
let draft = null; // an edit that is not applied yet, kept while other pages are looked at

addEventListener("beforeunload", (event) => {
  if (draft) event.preventDefault();
});

export async function load({ session }, signal) {
  try {
    const [text, history] = await Promise.all([get("policy/text", {}, signal), get("policy/history", {}, signal)]);
    return { text, history: history.data, session };
  } catch (error) {
    if (error.status !== 409) throw error;
    // Started without a file: there is something to see, and nothing to change.
    const running = await get("policy", {}, signal);
    return { text: { file: null, text: JSON.stringify(running, null, 2) }, history: [], session: { can_change: false } };
  }
}

export function draw({ text, history, session }, _, frame) {
  const mayEdit = session.can_change;
  const result = h("div", { class: "part", role: "status", "aria-label": "Result" }, done && h("p", { class: "notice good" }, done));
  done = null;
  if (draft?.revision !== text.revision) draft = null;
  const keep = (edited) => {
    draft = edited === text.text ? null : { revision: text.revision, text: edited };
  };
  const edit = editor(draft?.text ?? text.text, { readOnly: !mayEdit, onEdit: keep });
  const reload = () => frame.load({ isQuiet: false });
  const tools = mayEdit ? steps({ edit, result, reload, inForce: text, mayApply: session.can_manage }) : null;
  return h("div", { class: "policy-columns" },
    section(mayEdit ? "Edit" : "In force", { tools, note: note(text, session) }, draft && keptNote(edit, text.text), edit.node),
    h("div", { class: "stack" }, result, versions(history, { mayApply: session.can_manage, reload, result })));
}

function keptNote(edit, original) {
  const discard = (event) => {
    edit.replace(original);
    event.target.closest("p").remove();
  };
  return h("p", { class: "notice warn" }, "Your edit was kept and is not applied. ",
    h("button", { type: "button", class: "quiet", onclick: discard }, "Discard it"));
}

function note({ file }, session) {
  if (file === null) return "The gateway was started without a file: this is what it follows.";
  const may = session.can_manage ? "Nothing changes before it is applied."
    : session.can_change ? "Log in with an admin key to apply a change." : "";
  return [h("code", {}, file), " with its secrets masked: a mask that is left stands for the secret. ", may];
}

/** The three buttons. What is applied is what was checked: an edit in between asks for both again. */
function steps({ edit, result, reload, inForce, mayApply }) {
  const button = (name, act, tone) => h("button", { type: "button", class: tone, onclick: (event) => run(event.target, result, act) }, name);
  const check = async () => {
    const told = await post("policy/check", { text: edit.value() });
    edit.mark(told.problems);
    return problems(told, edit);
  };
  const plan = async () => planned(await post("policy/plan", { text: edit.value(), since: "7d" }));
  const apply = async () => {
    const told = await post("policy/check", { text: edit.value() });
    edit.mark(told.problems);
    if (told.problems.length) return problems(told, edit);
    const isSure = await agreed({
      title: "Apply this policy?", yes: "Apply",
      text: `${changedLines(inForce.text, edit.value())} It is followed from the next request on; the one before stays in the history.`,
    });
    if (!isSure) return h("p", { class: "note" }, "Nothing was applied.");
    const made = await post("policy/apply", { text: edit.value(), based_on: inForce.revision });
    draft = null;
    done = `Applied as version ${made.version}.`;
    await reload();
    return null;
  };
  return [button("Check", check), button("Plan", plan), mayApply && button("Apply", apply, "primary")].filter(Boolean);
}

async function run(button, result, act) {
  button.disabled = true;
  refill(result, h("p", { class: "note" }, "Working …"));
  try {
    refill(result, await act());
  } catch (error) {
    refill(result, h("p", { class: "notice bad", role: "alert" }, error.message));
  } finally {
    button.disabled = false;
  }
}

function changedLines(before, after) {
  const left = new Map();
  for (const line of before.split("\n")) left.set(line, (left.get(line) ?? 0) + 1);
  let added = 0;
  for (const line of after.split("\n")) {
    if (left.get(line)) left.set(line, left.get(line) - 1);
    else added += 1;
  }
  const removed = [...left.values()].reduce((sum, each) => sum + each, 0);
  return `${count(added)} lines come, ${count(removed)} go.`;
}

function problems({ problems: found, notes = [] }, edit) {
  if (found.length === 0) {
    return [h("p", { class: "notice good" }, "Nothing to mend."), notes.length ? h("ul", { class: "explanation" }, notes.map((each) => h("li", {}, each))) : null];
  }
  return [
    h("h2", {}, found.length === 1 ? "One thing to mend" : `${count(found.length)} things to mend`),
    h("ul", { class: "problems" }, found.map((each) => h("li", {}, h("button", { type: "button", onclick: () => edit.goTo(each.line, each.column) },
      h("span", {}, h("span", { class: "where" }, each.line ? `line ${each.line}` : "", each.path ? ` · ${each.path}` : ""), each.message, each.hint ? ` (${each.hint})` : ""))))),
  ];
}

function versions(found, { mayApply, reload, result }) {
  const back = async (version) => {
    const isSure = await agreed({
      title: `Roll back to version ${version.version}?`, yes: "Roll back", tone: "danger",
      text: "The policy as it was then is checked and followed from the next request on. This is a new version: nothing is lost.",
    });
    if (!isSure) return;
    try {
      const made = await post("policy/rollback", { version: version.version });
      done = `Rolled back: what was version ${version.version} is version ${made.version}.`;
      await reload();
    } catch (error) {
      refill(result, h("p", { class: "notice bad", role: "alert" }, error.message));
    }
  };
  const line = (each) => h("li", {},
    h("span", {}, `Version ${each.version} `, h("span", { class: "note" }, dayAndSecond(Date.parse(each.at)), " · ", each.by === "file" ? "edited by hand" : ["by ", h("bdi", {}, each.by)])),
    each.is_current ? badge("in force", "good") : mayApply && h("button", { type: "button", "aria-label": `Roll back to version ${each.version}`, onclick: () => back(each) }, "Roll back"));
  return section("History", { note: found.length ? "The newest first." : "No version has been kept yet." },
    found.length > 0 && h("ol", { class: "panel versions" }, found.map(line)));
}

