/* What the limit adds to a chart of throughput against latency: the Pareto front, the cell that is
   recommended, and the bound. */
import { colour } from "./dom.js";
import { passes } from "./filters.js";
import { latency } from "./labels.js";
import { boundText, paretoFront, recommend } from "./recommendation.js";
import { limit, ROWS } from "./state.js";

const MARGIN = 0.08; // of a decade, beside the outermost points

function frontTrace() {
  const front = paretoFront();
  if (front.length < 2) return [];
  return [
    {
      type: "scatter",
      mode: "lines",
      name: "front",
      x: front.map((row) => latency(row, limit.percent)),
      y: front.map((row) => row.throughput_img_per_s),
      line: { shape: "hv", color: colour("ink"), width: 1.1 },
      opacity: 0.55,
      hoverinfo: "skip",
    },
  ];
}

function bestTrace() {
  const { best } = recommend();
  if (!best || latency(best, limit.percent) === null) return [];
  const line = { width: 1.6 };
  return [
    {
      type: "scatter",
      mode: "markers",
      name: "best",
      x: [latency(best, limit.percent)],
      y: [best.throughput_img_per_s],
      marker: { size: 21, symbol: "circle-open", color: colour("ink"), line },
      hoverinfo: "skip",
    },
  ];
}

function boundShapes(high) {
  const across = { xref: "x", yref: "paper", y0: 0, y1: 1, x0: limit.bound };
  const beyond = { x1: 10 ** (high + 1), fillcolor: colour("shade"), line: { width: 0 } };
  const line = { color: colour("bad"), width: 1.2 };
  return [
    { type: "rect", ...across, ...beyond, layer: "below" },
    { type: "line", ...across, x1: limit.bound, line },
  ];
}

function boundAnnotation(low, high) {
  const x = Math.log10(limit.bound);
  const isLeft = x - low < (high - low) / 3;
  return {
    xref: "x",
    yref: "paper",
    x,
    y: 1,
    text: boundText(),
    showarrow: false,
    xanchor: isLeft ? "left" : "right",
    xshift: isLeft ? 5 : -5,
    yanchor: "top",
    font: { color: colour("bad"), size: 12 },
  };
}

export function withLimit(traces, layout) {
  const x = traces.flatMap((trace) => trace.x);
  const low = Math.log10(Math.min(...x, limit.bound ?? Infinity)) - MARGIN;
  const high = Math.log10(Math.max(...x, limit.bound ?? 0)) + MARGIN;
  const bound = limit.bound !== null && {
    shapes: boundShapes(high),
    annotations: [boundAnnotation(low, high)],
  };
  const xaxis = { ...layout.xaxis, range: [low, high], autorange: false };
  return [[...frontTrace(), ...traces, ...bestTrace()], { ...layout, xaxis, ...bound }];
}

/* What the chart cannot show. */
export function missingNote() {
  const measured = ROWS.filter((row) => passes(row) && row.throughput_img_per_s);
  const n = measured.filter((row) => latency(row, limit.percent) === null).length;
  if (!n) return [];
  const cells = n === 1 ? "1 cell has" : `${n} cells have`;
  const are = n === 1 ? "is" : "are";
  return [{ text: `${cells} too few samples for p${limit.percent} and ${are} not drawn.` }];
}
