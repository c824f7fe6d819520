// Runs before the first paint, so that a chosen theme does not flash. Not a module for that reason.
"use strict";
(() => {
  const chosen = (() => {
    try {
      return localStorage.getItem("frugal-theme");
    } catch {
      return null; // storage is switched off: follow the system
    }
  })();
  if (chosen === "light" || chosen === "dark") document.documentElement.dataset.theme = chosen;
})();
