/* How to read the charts: what each colour and marker stands for; and the filters beside it. */
import { byId, h } from "./dom.js";
import { filterSelects } from "./filters.js";
import { DATA, ROWS } from "./state.js";

const SVG = "http://www.w3.org/2000/svg";
/* Plotly's markers, as paths around 0,0. */
const SHAPES = {
  circle: "M0,4.5A4.5,4.5 0 1,1 0,-4.5A4.5,4.5 0 1,1 0,4.5Z",
  square: "M-4,-4H4V4H-4Z",
  diamond: "M0,-5.5L5.5,0L0,5.5L-5.5,0Z",
  "triangle-up": "M-5,4H5L0,-5Z",
  "triangle-down": "M-5,-4H5L0,5Z",
  star: "M0,-6L1.5,-2L6,-2L2.4,0.8L3.7,5L0,2.4L-3.7,5L-2.4,0.8L-6,-2L-1.5,-2Z",
  hexagon: "M5,0L2.5,4.3H-2.5L-5,0L-2.5,-4.3H2.5Z",
  cross: "M-1.6,-5H1.6V-1.6H5V1.6H1.6V5H-1.6V1.6H-5V-1.6H-1.6Z",
};
/* Plotly's dashes, as SVG has them. */
const DASHES = { solid: "", dash: "6 4", dashdot: "6 3 2 3", longdash: "10 4" };
const SWATCH = "M-5,-5H5V5H-5Z";

function svg(tag, attributes, ...children) {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

function glyph(d, { width = 16, ...attributes } = {}) {
  const path = svg("path", {
    d,
    transform: `translate(${width / 2} 8)`,
    fill: "currentColor",
    ...attributes,
  });
  return svg("svg", { width, height: 16, "aria-hidden": "true" }, path);
}

const stroke = (width) => ({ fill: "none", stroke: "currentColor", "stroke-width": width });
const dashed = (dash) => glyph("M-13,0H13", { width: 28, ...stroke(2), "stroke-dasharray": dash });
const item = (picture, text) => h("i", {}, picture, text);

function entries() {
  const { instances, batches, protocols } = DATA.keys;
  const engines = new Set(ROWS.map((row) => row.engine));
  const older = DATA.runs.slice(0, -1).map((run) => run.name);
  const faint = glyph(SHAPES.circle, { opacity: 0.4 });
  return [
    [
      "Instances",
      instances.map(([n, hue]) => item(glyph(SWATCH, { fill: hue }), n ?? "as served")),
    ],
    ["Batch", batches.map(([size, shape]) => item(glyph(SHAPES[shape]), size))],
    protocols.length > 1 && [
      "Protocol",
      protocols.map(([name, dash]) => item(dashed(DASHES[dash]), name)),
    ],
    ROWS.some((row) => row.verdict === "INVALID") && [
      "",
      item(glyph(SHAPES.circle, stroke(1.4)), "hollow: INVALID"),
    ],
    engines.size > 1 && ["", item(faint.cloneNode(true), "faint: perf_analyzer (pa)")],
    older.length && ["", item(faint, `faint: ${older.join(", ")}`)],
  ].filter(Boolean);
}

export function drawReading() {
  const parts = entries().map(([name, items]) => h("span", {}, name || null, items));
  byId("reading").replaceChildren(...parts, h("span", { class: "filters" }, filterSelects()));
}
