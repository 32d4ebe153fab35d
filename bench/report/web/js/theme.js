/* Light or dark, as the system is until the reader chooses; and the page on paper. */
import { byId, forgetColours } from "./dom.js";
import { drawAll } from "./plot.js";
import { paper, refresh } from "./state.js";

const isDark = () => document.documentElement.dataset.theme === "dark";
function setTheme(dark) {
  document.documentElement.dataset.theme = dark ? "dark" : "light";
  forgetColours();
  byId("theme").setAttribute("aria-pressed", String(dark));
}
function change(dark) {
  setTheme(dark);
  refresh();
}

export function startTheme() {
  const system = window.matchMedia("(prefers-color-scheme: dark)");
  setTheme(system.matches);
  system.addEventListener("change", (event) => change(event.matches));
  byId("theme").addEventListener("click", () => change(!isDark()));
}

/* On paper it is light, everything is open, and every chart is as wide as a sheet. Afterwards it is as
   before. */
export function startPrinting() {
  let before = null;
  window.addEventListener("beforeprint", () => {
    before = { dark: isDark(), closed: [...document.querySelectorAll("details:not([open])")] };
    for (const details of before.closed) details.open = true;
    paper.isPrinting = true;
    change(false);
    drawAll();
  });
  window.addEventListener("afterprint", () => {
    for (const details of before.closed) details.open = false;
    paper.isPrinting = false;
    change(before.dark);
  });
}
