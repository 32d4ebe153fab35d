/* The tail of one cell, on an axis of 1 / (1 - p): every decade is one nine more. */
import { byId, colour, h, narrow } from "./dom.js";
import { passes } from "./filters.js";
import { count, sig } from "./format.js";
import { label } from "./labels.js";
import { layoutOf, plot } from "./plot.js";
import { recommend } from "./recommendation.js";
import { DATA, ROWS } from "./state.js";
import { logTicks } from "./ticks.js";

const STEPS = [1, 2, 10, 20, 100, 1000, 10000, 100000];
/* 100 is p99: of 100 requests one is slower. */
const percentText = (step) => `p${sig(100 - 100 / step, 5)}`;

export const hueOf = (row) => DATA.keys.instances.find(([value]) => value === row.instances)[1];
export const detailsOf = (row) => DATA.details[row.index];

/* One line of the ladder of percentiles; faint where there are too few samples for the percentile. */
function lineOf(ladder, { key, name, dash, hue }, from, to, isFaint) {
  const steps = ladder.steps.slice(from, to);
  const values = ladder[key].slice(from, to);
  const few = isFaint ? ", too few" : "";
  const text = steps.map(
    (step, i) =>
      `<b>${percentText(step)}</b> ${name} ${sig(values[i])} ms<br>n ${count(ladder.n)}${few}`,
  );
  const line = { color: hue, dash, width: 2 };
  const opacity = isFaint ? 0.3 : 1;
  return {
    type: "scatter",
    mode: "lines",
    name,
    x: steps,
    y: values,
    opacity,
    line,
    text,
    hoverinfo: "text",
  };
}

function tickText(step) {
  if (step === 1) return narrow() ? "" : "fastest";
  return step === 20 && narrow() ? "" : percentText(step);
}

export function drawTail(element, row) {
  const ladder = detailsOf(row)?.ladder;
  if (!ladder?.steps.length) {
    element.replaceChildren(h("p", { class: "note" }, "No requests to draw."));
    return;
  }
  const { steps, carried } = ladder;
  const kinds = [
    { key: "service_ms", name: "service", dash: "dot", hue: colour("muted") },
    { key: "response_ms", name: "response", dash: "solid", hue: hueOf(row) },
  ];
  const traces = kinds.flatMap((kind) => {
    const sure = lineOf(ladder, kind, 0, carried, false);
    if (carried >= steps.length) return [sure];
    return [sure, lineOf(ladder, kind, Math.max(0, carried - 1), steps.length, true)];
  });
  const values = [...ladder.response_ms, ...ladder.service_ms].filter((v) => v > 0);
  const isFlat = Math.max(...values) < 8 * Math.min(...values);
  const tickvals = STEPS.filter((step) => step <= steps.at(-1) * 1.01);
  const xaxis = { type: "log", tickvals, ticktext: tickvals.map(tickText), tickangle: 0 };
  const yaxis = isFlat
    ? { type: "linear", title: { text: "ms" }, rangemode: "tozero" }
    : { type: "log", title: { text: "ms (log)" }, ...logTicks(values) };
  plot(
    element,
    traces,
    layoutOf({ height: 330, margin: { l: 52, r: 26, t: 10, b: 44 }, xaxis, yaxis }),
  );
}

/* The section of the page: any cell's tail, at first that of the recommended one. */
export function drawTailSection() {
  const rows = ROWS.filter((row) => passes(row) && detailsOf(row)?.ladder.steps.length);
  byId("tail").hidden = !rows.length;
  if (!rows.length) return;
  const select = byId("tail-cell");
  const chosen =
    rows.find((row) => String(row.index) === select.value) ?? recommend().best ?? rows[0];
  select.replaceChildren(...rows.map((row) => h("option", { value: row.index }, label(row))));
  select.value = String(chosen.index);
  drawTail(byId("tail-figure"), chosen);
}

export function startTail() {
  byId("tail-cell").addEventListener("change", (event) => {
    drawTail(byId("tail-figure"), ROWS[Number(event.target.value)]);
  });
}
