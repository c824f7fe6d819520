// Begins: asks who is there, then shows the log-in or the page of the address.

import { whoAmI } from "./api.js";
import { showLogIn } from "./log_in.js";
import { loadAhead, showFrame } from "./frame.js";
import { failure } from "./parts.js";
import { h, refill } from "./dom.js";

async function begin() {
  try {
    const first = loadAhead(); // while the gateway is asked who is there: mostly somebody is
    const session = await whoAmI();
    if (session) await showFrame(session, () => showLogIn(begin), first);
    else showLogIn(begin);
  } catch (error) {
    refill(document.body, h("main", { class: "alone" }, failure(error, begin)));
  }
}

begin();
