/* Draw with Plotly in the looks of the page, what is in sight first. */
import { byId, colour, escaped, narrow } from "./dom.js";
import { openCell } from "./labels.js";
import { paper } from "./state.js";

const CONFIG = { displayModeBar: false, responsive: true, doubleClick: "reset" };
const CLEAR = "rgba(0,0,0,0)";

function axis(asked = {}) {
  const title = { ...asked.title, font: { size: 12, color: colour("muted") }, standoff: 10 };
  return {
    gridcolor: colour("line"),
    linecolor: colour("strong"),
    zerolinecolor: colour("strong"),
    zeroline: false,
    tickcolor: colour("strong"),
    ticks: "outside",
    ticklen: 4,
    automargin: true,
    showline: false,
    ...asked,
    ...(asked.ticktext && { ticktext: asked.ticktext.map(escaped) }),
    title,
  };
}

/* A chart's own layout with the colours, fonts and margins of the page. */
export function layoutOf(asked) {
  const font = { family: colour("sans"), size: 12, color: colour("muted") };
  const hoverFont = { family: colour("sans"), size: 12.5, color: colour("ink") };
  return {
    paper_bgcolor: CLEAR,
    plot_bgcolor: CLEAR,
    showlegend: false,
    hovermode: "closest",
    dragmode: narrow() ? false : "zoom",
    font,
    margin: { l: 52, r: 14, t: 10, b: 44 },
    hoverlabel: {
      bgcolor: colour("surface"),
      bordercolor: colour("strong"),
      font: hoverFont,
      align: "left",
    },
    ...asked,
    width: paper.isPrinting ? paper.width : undefined,
    autosize: !paper.isPrinting,
    xaxis: axis(asked.xaxis),
    yaxis: axis(asked.yaxis),
  };
}

/* A chart waits until it is in sight, or until nothing else is to do. */
const waiting = new Map();
const sight = new IntersectionObserver(
  (entries) => {
    for (const { target, isIntersecting } of entries) if (isIntersecting) drawNow(target);
    performance.mark("sight");
  },
  { rootMargin: "200px" },
);
function drawNow(element) {
  const draw = waiting.get(element);
  waiting.delete(element);
  sight.unobserve(element);
  draw?.();
}
export function drawAll() {
  for (const element of [...waiting.keys()]) drawNow(element);
}
/* One chart at a time, so that the page answers between them. */
export function drawRest() {
  const next = waiting.keys().next();
  if (next.done) {
    document.documentElement.dataset.ready = "1";
    performance.mark("ready");
    return;
  }
  drawNow(next.value);
  setTimeout(drawRest, 0);
}

function draw(element, traces, layout) {
  Plotly.react(element, traces, layout, CONFIG);
  if (element.dataset.listens) return;
  element.dataset.listens = "1";
  element.on("plotly_click", ({ points: [{ customdata: index }] }) => {
    if (Number.isInteger(index)) openCell(index);
  });
}

export function plot(element, traces, layout) {
  element.style.width = paper.isPrinting ? `${paper.width}px` : "";
  element.style.height = `${layout.height}px`; // a plot that follows its width takes its height from here
  const isUrgent =
    element.dataset.listens ||
    byId("cell").contains(element) ||
    document.documentElement.dataset.ready;
  if (isUrgent) {
    draw(element, traces, layout);
    return;
  }
  waiting.set(element, () => draw(element, traces, layout));
  sight.observe(element);
}
