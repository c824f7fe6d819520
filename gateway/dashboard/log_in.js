// The log-in page.

import { logIn } from "./api.js";
import { h, refill } from "./dom.js";
import { mark } from "./icons.js";

/** Ask for a key; `then` is called once the session stands. */
export function showLogIn(then) {
  document.title = "Log in · frugal-gateway";
  const key = h("input", {
    id: "key", type: "password", required: true, autocomplete: "current-password",
    spellcheck: "false", autocapitalize: "off", "aria-describedby": "key-note log-in-problem",
  });
  const problem = h("p", { id: "log-in-problem", class: "problem", role: "alert" });
  const button = h("button", { type: "submit", class: "primary" }, "Log in");
  const form = h(
    "form", { class: "log-in panel", onsubmit: submit },
    h("div", { class: "brand large" }, mark(), h("h1", {}, "frugal-gateway")),
    h("label", { for: "key" }, "Admin or read-only key"),
    key,
    h("p", { id: "key-note", class: "note" },
      "Made with ", h("code", {}, "frugal keys"), ". It is exchanged for a session and not kept in this browser."),
    problem,
    button,
  );

  async function submit(event) {
    event.preventDefault();
    button.disabled = true;
    refill(problem);
    try {
      await logIn(key.value.trim());
      key.value = "";
      await then();
    } catch (error) {
      refill(problem, error.message);
      key.setAttribute("aria-invalid", "true");
      key.focus();
    } finally {
      button.disabled = false;
    }
  }

  refill(document.body, h("main", { class: "alone" }, form));
  key.focus();
}
