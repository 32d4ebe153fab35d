/* The list of sections beside the page; the one in sight is marked. */
import { byId, h } from "./dom.js";

const TOP = 140; // pixels: a section that begins above this is the one being read

export function drawContents() {
  const all = [...document.querySelectorAll("main > section")];
  const sections = all.filter((section) => !section.hidden);
  const links = sections.map((section) =>
    h("a", { href: `#${section.id}` }, section.querySelector("h2").textContent),
  );
  byId("contents").replaceChildren(...links.map((link) => h("li", {}, link)));
  const mark = () => {
    const above = sections.filter((section) => section.getBoundingClientRect().top < TOP);
    const here = sections.indexOf(above.at(-1) ?? sections[0]);
    links.forEach((link, i) => {
      link.classList.toggle("here", i === here);
    });
  };
  document.addEventListener("scroll", mark, { passive: true });
  mark();
}
