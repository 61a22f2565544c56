// Light or dark, before anything is drawn: as the system has it, until somebody chooses. A plain script, not a module,
// so that a dark page does not flash white first.
"use strict";

(() => {
  const KEY = "microsfl-theme";
  const root = document.documentElement;
  const system = matchMedia("(prefers-color-scheme: dark)");

  const chosen = () => {
    try {
      return localStorage.getItem(KEY);
    } catch {
      return null; // storage may be forbidden
    }
  };

  const current = () => root.dataset.theme || (system.matches ? "dark" : "light");

  const tell = () => document.dispatchEvent(new CustomEvent("theme"));

  if (chosen() === "dark" || chosen() === "light") root.dataset.theme = chosen();
  system.addEventListener("change", tell);

  document.addEventListener("DOMContentLoaded", () => {
    const button = document.getElementById("theme");
    const label = () => {
      const other = current() === "dark" ? "light" : "dark";
      button.textContent = other === "dark" ? "Dark" : "Light";
      button.setAttribute("aria-label", `Switch to ${other} colours`);
    };
    button.addEventListener("click", () => {
      root.dataset.theme = current() === "dark" ? "light" : "dark";
      try {
        localStorage.setItem(KEY, root.dataset.theme);
      } catch {
        // It holds for this page then.
      }
      tell();
    });
    document.addEventListener("theme", label);
    label();
  });
})();
