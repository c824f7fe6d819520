// What stands around every page: the navigation, the range, and how a page is loaded and kept fresh.

import { BASE, address, changed, go, isCompared, params, rangeQuery, timeRange, viewName, RANGES } from "./address.js";
import { logOut } from "./api.js";
import { h, refill, replaceKeepingFocus } from "./dom.js";
import { iso, moment } from "./format.js";
import { icon, mark } from "./icons.js";
import { follow } from "./live.js";
import { failure, waiting } from "./parts.js";

const VIEWS = {
  overview: "Overview",
  spend: "Spend",
  quality: "Quality",
  requests: "Requests",
  policy: "Policy",
  providers: "Providers",
};
const AWHILE_MS = 150; // what loads faster shows no sign of loading

let frame = null;

/** Begin to load the page of the address; what comes of it, or null, is for `showFrame`. */
export async function loadAhead() {
  const href = location.href;
  try {
    const view = await import(`./views/${viewName()}.js`);
    return view.isLive ? { href, data: await view.load(asked(null), null) } : null;
  } catch {
    return null; // asked again, it says why
  }
}

/** Draw the frame for a session and the page of the address in it, from what was loaded `ahead`. */
export async function showFrame(session, onLoggedOut, ahead) {
  frame?.close();
  frame = new Frame(session, onLoggedOut, ahead);
  await frame.show();
}

/** What a page is asked to show. */
function asked(session) {
  return { range: timeRange(), query: rangeQuery(), isCompared: isCompared(), params: params(), session };
}

class Frame {
  constructor(session, onLoggedOut, ahead) {
    this.session = session;
    this.ahead = ahead;
    this.onLoggedOut = onLoggedOut;
    this.listening = new AbortController();
    this.main = h("main", { id: "content", tabindex: "-1" });
    this.draw();
    const { signal } = this.listening;
    addEventListener("popstate", () => this.show(), { signal });
    addEventListener("frugal:address", () => this.show(), { signal });
    addEventListener("frugal:logged-out", () => this.leave(), { signal });
    document.addEventListener("click", (event) => this.stayHere(event), { signal });
    document.addEventListener("visibilitychange", () => this.catchUp(), { signal });
    this.live = follow({
      onNews: () => this.refresh(), onBeat: () => this.catchUp(), onState: (state) => this.tellLive(state),
    });
  }

  close() {
    this.listening.abort();
    this.loading?.abort();
    this.live.close();
  }

  leave() {
    this.close();
    this.onLoggedOut();
  }

  draw() {
    this.links = Object.fromEntries(
      Object.entries(VIEWS).map(([name, title]) => [name, h("a", { href: "" }, icon(name), title)]),
    );
    const nav = h("nav", { "aria-label": "Pages" }, h("ul", {}, Object.values(this.links).map((a) => h("li", {}, a))));
    this.liveButton = h("button", { type: "button", class: "quiet live", onclick: () => this.live.toggle() });
    const header = h(
      "header", { class: "side" },
      h("a", { class: "skip", href: "#content", onclick: (event) => this.skip(event) }, "Skip to content"),
      h("div", { class: "brand" }, mark(), h("span", {}, "frugal-gateway")),
      nav,
      h("div", { class: "side-foot" }, this.who(), h("div", { class: "side-tools" }, this.liveButton, themeButton(), this.outButton())),
    );
    refill(document.body, h("div", { class: "frame" }, header, this.main));
  }

  who() {
    const may = this.session.can_manage ? "admin" : this.session.can_change ? "no key" : "read-only";
    const name = this.session.is_anonymous ? "this machine" : this.session.key;
    return h("p", { class: "who" }, h("bdi", { class: "who-name" }, name), h("span", { class: "tag" }, may));
  }

  outButton() {
    const { csrf, is_anonymous: isAnonymous } = this.session;
    if (csrf === null && !isAnonymous) return null; // a header that a proxy adds: not ours to end
    const end = () => logOut().catch(() => null).then(() => this.leave());
    const [title, act] = isAnonymous ? ["Log in with a key", () => this.leave()] : ["Log out", end];
    return h("button", { type: "button", class: "quiet", title, "aria-label": title, onclick: act }, icon(isAnonymous ? "in" : "out"));
  }

  skip(event) {
    event.preventDefault();
    this.main.focus();
  }

  /** Follow our own links without loading the page again. */
  stayHere(event) {
    const link = event.target.closest?.("a[href]");
    if (!link || link.target || link.download || event.defaultPrevented || event.button !== 0) return;
    if (event.metaKey || event.ctrlKey || event.shiftKey || event.altKey) return;
    if (!link.href.startsWith(BASE.href)) return;
    event.preventDefault();
    go(link.href);
  }

  markLinks(current) {
    for (const [name, link] of Object.entries(this.links)) {
      link.href = address(name);
      if (name === current) link.setAttribute("aria-current", "page");
      else link.removeAttribute("aria-current");
    }
  }

  /** Load the page of the address and draw it. */
  async show() {
    const name = viewName();
    const isOther = name !== this.shown;
    this.shown = name;
    this.markLinks(name);
    document.title = `${VIEWS[name] ?? "?"} · frugal-gateway`;
    this.main.setAttribute("aria-busy", "true");
    const view = await this.viewOf(name);
    if (this.shown !== name || !view) return; // somebody went on meanwhile, or there is none
    this.view = view;
    if (isOther) {
      this.body = h("div", { class: "view", "data-view": name });
      this.head = h("div", { class: "view-head" });
      refill(this.main, this.head, this.body);
      scrollTo(0, 0);
    }
    replaceKeepingFocus(this.head, heading(VIEWS[name], this.view));
    await this.load({ isQuiet: !isOther });
    if (isOther && this.wasShown) this.main.focus({ preventScroll: true });
    this.wasShown = true;
  }

  /** Return a page's module, null where it cannot be had: another version may be serving by now. */
  async viewOf(name) {
    try {
      return await import(`./views/${name}.js`);
    } catch (error) {
      if (!this.wasShown) throw error;
      if (this.shown !== name) return null;
      const gone = new Error("This page cannot be loaded: the gateway does not answer, or is another version by now.");
      refill(this.main, failure(gone, () => location.reload()));
      this.main.removeAttribute("aria-busy");
      this.shown = this.view = null;
      return null;
    }
  }

  /** Load again what is shown, for it may have changed; later, where that cannot be now. */
  refresh() {
    if (!this.view?.isLive || timeRange().until !== null) return;
    this.isStale = true;
    if (!document.hidden && !this.isBusy) this.load({ isQuiet: true, isRefresh: true });
  }

  /** Load again what a refresh did not come to. */
  catchUp() {
    if (this.isStale) this.refresh();
  }

  async load({ isQuiet, isRefresh = false }) {
    this.isStale = false;
    this.loading?.abort();
    const loading = (this.loading = new AbortController());
    const sign = isQuiet ? 0 : setTimeout(() => refill(this.body, waiting()), AWHILE_MS);
    this.isBusy = true;
    if (!isRefresh) this.main.setAttribute("aria-busy", "true");
    try {
      const data = await this.data(loading.signal);
      clearTimeout(sign);
      if (!loading.signal.aborted) replaceKeepingFocus(this.body, this.view.draw(data, asked(this.session), this));
    } catch (error) {
      clearTimeout(sign);
      const isOurs = error.name === "AbortError" || loading.signal.aborted;
      if (isRefresh && !isOurs) this.isStale = true;
      if (!isOurs && !isRefresh) refill(this.body, failure(error, () => this.load({ isQuiet: false })));
    } finally {
      if (this.loading === loading) {
        this.isBusy = false;
        this.main.removeAttribute("aria-busy");
      }
    }
  }

  /** Return what the page shows: once what was loaded ahead, if that was for this address. */
  async data(signal) {
    const ahead = await this.ahead;
    this.ahead = null;
    return ahead?.href === location.href ? ahead.data : this.view.load(asked(this.session), signal);
  }

  tellLive(state) {
    const words = { live: "Live", paused: "Paused", lost: "Not live" };
    const title = state === "paused" ? "Updates are paused; go on" : "Updates arrive as they happen; pause";
    refill(this.liveButton, h("span", { class: `dot is-${state}` }), words[state]);
    this.liveButton.title = title;
    this.liveButton.setAttribute("aria-pressed", String(state === "paused"));
    this.liveButton.setAttribute("aria-label", `${words[state]}. ${title}`);
  }
}

function heading(title, view) {
  const tools = view.hasRange === false ? null : rangeTools(view);
  return h("div", { class: "heading" }, h("h1", {}, title), tools);
}

function rangeTools(view) {
  const { name, since, until } = timeRange();
  const choices = Object.keys(RANGES).map((each) =>
    h("a", {
      href: changed({ range: each, from: null, to: null, cursor: null }), "data-key": `range-${each}`,
      "aria-current": each === name ? "true" : undefined,
    }, each));
  const compare = view.hasComparison && h(
    "label", { class: "switch" },
    h("input", {
      type: "checkbox", checked: isCompared(), "data-key": "compare",
      onchange: (event) => go(changed({ compare: event.target.checked ? null : "off" }), { replace: true }),
    }),
    "Compare with the period before",
  );
  return h(
    "div", { class: "range" },
    compare,
    h("div", { class: "segments", role: "group", "aria-label": "Time range" }, choices),
    customRange(name, since, until ?? Date.now()),
  );
}

function customRange(name, since, until) {
  const field = (id, title, ms) => h("label", {}, title, h("input", {
    type: "datetime-local", id, value: iso(ms).slice(0, 16), required: true,
  }));
  const isCustom = name === "custom";
  const shown = isCustom ? `${moment(since).slice(0, 16)} to ${moment(until).slice(0, 16)}` : "Dates";
  const problem = h("p", { class: "problem", role: "alert" });
  return h(
    "details", { class: "custom menu", "data-key": "custom-range" },
    h("summary", { "data-key": "custom-summary", "aria-current": isCustom ? "true" : undefined }, shown),
    h("form", {
      class: "panel pop",
      onsubmit: (event) => {
        event.preventDefault();
        const [from, to] = [...event.target.querySelectorAll("input")].map((input) => `${input.value}Z`);
        if (!(Date.parse(from) < Date.parse(to))) refill(problem, "The first moment must be before the second.");
        else {
          event.target.closest("details").open = false;
          go(changed({ from, to, range: null, cursor: null }));
        }
      },
    }, field("from", "From (UTC)", since), field("to", "To (UTC)", until), problem,
      h("button", { type: "submit", class: "primary" }, "Show")),
  );
}

function themeButton() {
  const isDark = () => {
    const chosen = document.documentElement.dataset.theme;
    return chosen ? chosen === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  };
  const button = h("button", { type: "button", class: "quiet", onclick: turn });
  function tell() {
    const other = isDark() ? "light" : "dark";
    refill(button, icon(isDark() ? "sun" : "moon"));
    button.title = `Use the ${other} theme`;
    button.setAttribute("aria-label", button.title);
  }
  function turn() {
    const theme = isDark() ? "light" : "dark";
    document.documentElement.dataset.theme = theme;
    try {
      localStorage.setItem("frugal-theme", theme);
    } catch {
      // Storage is switched off: it holds until the page is left.
    }
    tell();
  }
  tell();
  return button;
}

