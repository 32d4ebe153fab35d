/* Theme: the system's until somebody says otherwise. */
function setTheme(dark) {
  document.documentElement.dataset.theme = dark ? "dark" : "light";
  colours.clear();
  $("theme").setAttribute("aria-pressed", String(dark));
}
const system = window.matchMedia("(prefers-color-scheme: dark)");
setTheme(system.matches);
system.addEventListener("change", (event) => { setTheme(event.matches); refresh(); });
$("theme").addEventListener("click", () => { setTheme(document.documentElement.dataset.theme !== "dark"); refresh(); });

/* On paper: light, unfolded, and every chart as wide as a sheet; afterwards as before. */
let printing = null;
const SHEET = 680;
window.addEventListener("beforeprint", () => {
  const closed = [...document.querySelectorAll("details:not([open])")];
  printing = { dark: document.documentElement.dataset.theme === "dark", closed };
  closed.forEach((d) => { d.open = true; });
  setTheme(false); refresh(); drawAll();
});
window.addEventListener("afterprint", () => {
  const { dark, closed } = printing;
  printing = null;
  closed.forEach((d) => { d.open = false; });
  setTheme(dark); refresh();
});
