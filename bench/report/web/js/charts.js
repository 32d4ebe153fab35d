/* The charts that Python made as Plotly figures: filtered, fitted to the page, and drawn.

   A chart is a kind (plain, tall, or lines: a line of text per cell), whether it follows the limit, and
   variants between which the page switches. Points carry row numbers as `customdata`. */
import { h, narrow, switchButtons } from "./dom.js";
import { passes } from "./filters.js";
import { chartLabel, hover, link, partHover } from "./labels.js";
import { missingNote, withLimit } from "./limit_overlay.js";
import { layoutOf, plot } from "./plot.js";
import { DATA, limit, ROWS } from "./state.js";
import { logTicks, ratioTicks } from "./ticks.js";

const LINE = 21; // pixels per cell, in charts with a line of text per cell
const HEAD = 42; // pixels of their axis above
const COLLAPSED = 560; // pixels: longer ones start collapsed
const MOST_BUTTONS = 6;

/* Traces without the points that the filters take away. */
const at = (values, kept) => (Array.isArray(values) ? kept.map((i) => values[i]) : values);
function filtered(trace) {
  const rows = trace.customdata;
  if (!rows) return trace;
  const kept = rows.flatMap((index, i) => (passes(ROWS[index]) ? [i] : []));
  const bars = (name) => {
    const asked = trace[name];
    if (!asked) return {};
    return {
      [name]: { ...asked, array: at(asked.array, kept), arrayminus: at(asked.arrayminus, kept) },
    };
  };
  const { marker } = trace;
  const markers = marker && {
    marker: { ...marker, symbol: at(marker.symbol, kept), color: at(marker.color, kept) },
  };
  const texts = trace.hoverinfo !== "skip" && {
    text: kept.map((i) => hoverOf(trace, i)),
    hoverinfo: "text",
    textposition: "none",
  };
  const points = { x: at(trace.x, kept), y: at(trace.y, kept), customdata: at(rows, kept) };
  return { ...trace, ...points, ...bars("error_x"), ...bars("error_y"), ...markers, ...texts };
}
function hoverOf(trace, i) {
  const row = ROWS[trace.customdata[i]];
  return trace.type === "bar" ? partHover(row, trace.name, trace.x[i]) : hover(row);
}

/* In charts with a line per cell, the lines that are left move together. */
function compacted(traces, layout) {
  const rowOf = new Map();
  for (const { y, customdata } of traces) {
    y.forEach((value, i) => {
      rowOf.set(Math.round(value), ROWS[customdata[i]]);
    });
  }
  const lines = [...rowOf.keys()].sort((a, b) => a - b);
  const placeOf = new Map(lines.map((line, i) => [line, i]));
  const moved = (value) => value - Math.round(value) + placeOf.get(Math.round(value));
  const yaxis = {
    ...layout.yaxis,
    tickvals: lines.map((_, i) => i),
    ticktext: lines.map((line) => chartLabel(rowOf.get(line))),
    range: [lines.length - 0.4, -0.6],
    autorange: false,
    tickfont: { size: narrow() ? 9.5 : 11.5 },
  };
  // The title stands above the chart as text that wraps; here it would be cut off.
  const xaxis = { ...layout.xaxis, title: undefined };
  const frame = { height: lines.length * LINE + HEAD, margin: { l: 52, r: 18, t: 24, b: 10 } };
  return [
    traces.map((trace) => ({ ...trace, y: trace.y.map(moved) })),
    { ...layout, ...frame, xaxis, yaxis },
  ];
}

/* Ticks of axes for which Python gave none. */
function withTicks(traces, layout) {
  const ticked = { ...layout };
  for (const [name, of] of [
    ["xaxis", "x"],
    ["yaxis", "y"],
  ]) {
    const asked = layout[name];
    if (asked?.type !== "log" || asked.tickvals) continue;
    const values = traces.flatMap((trace) => trace[of]);
    const ticks = layout.meta?.ratios ? ratioTicks(reached(traces)) : logTicks(values);
    ticked[name] = { ...asked, ...ticks };
  }
  return ticked;
}
/* Both ends of all error bars along x. */
function reached(traces) {
  const ends = traces.flatMap(({ x, error_x: bars }) =>
    x.flatMap((v, i) => [v - (bars?.arrayminus[i] ?? 0), v + (bars?.array[i] ?? 0)]),
  );
  return ends.filter((v) => v > 0);
}

/* Very long error bars are cut at the top of the chart, since they would flatten all else. */
function clipped(traces, layout) {
  const top = Math.max(...traces.flatMap((trace) => trace.y));
  const ends = traces.flatMap((trace) =>
    (trace.error_y?.array ?? []).map((up, i) => trace.y[i] + up),
  );
  if (layout.yaxis.rangemode !== "tozero" || Math.max(...ends) <= 1.7 * top) return layout;
  return { ...layout, yaxis: { ...layout.yaxis, range: [0, 1.35 * top] } };
}

function heightOf(chart) {
  if (chart.kind !== "tall") return 330;
  return narrow() ? 400 : 520;
}

function drawn(chart, variant) {
  const shown = variant.data.map(filtered).filter((trace) => trace.x.length);
  if (chart.kind === "lines") {
    const [traces, layout] = compacted(shown, variant.layout);
    return [traces, layoutOf(withTicks(traces, layout))];
  }
  const layout = clipped(shown, withTicks(shown, variant.layout));
  const fitted = layoutOf({ ...layout, height: heightOf(chart) });
  return chart.follows_limit ? withLimit(shown, fitted) : [shown, fitted];
}

/* Which variant of a chart is shown: of a percentile the limit chooses, of others the reader. */
const picked = new Map();
function variantOf(chart) {
  return chart.variants[
    chart.follows_limit ? DATA.percents.indexOf(limit.percent) : (picked.get(chart) ?? 0)
  ];
}

function variantSwitch(chart, holder) {
  if (chart.variants.length < 2 || chart.follows_limit) return null;
  const labels = chart.variants.map((variant) => variant.label);
  const choose = (i) => {
    picked.set(chart, i);
    drawChart(chart, holder);
  };
  if (labels.length <= MOST_BUTTONS) {
    return h("div", { class: "switch", role: "group" }, switchButtons(labels, 0, choose));
  }
  const options = labels.map((label, i) => h("option", { value: i }, label));
  const onchange = (event) => choose(Number(event.target.value));
  return h("label", { class: "pick" }, "load", h("select", { onchange }, options));
}

function legend(chart) {
  const named = chart.kind === "lines" ? chart.variants[0].data.filter((trace) => trace.name) : [];
  if (!named.length) return null;
  const entries = named.map(({ name, marker }) =>
    h("span", {}, h("i", { style: `background:${marker.color}` }), name),
  );
  return h("div", { class: "legend" }, entries);
}

function noteText({ text, rows = [] }) {
  return h(
    "div",
    {},
    text,
    rows.flatMap((index, i) => [i ? ", " : " ", link(ROWS[index])]),
  );
}

function build(chart, holder) {
  const isLines = chart.kind === "lines";
  const parts = [
    variantSwitch(chart, holder),
    legend(chart),
    isLines ? h("p", { class: "note axis-title" }) : null,
    h("div", { class: "plots" }, h("div")),
    h("div", { class: "note chart-notes" }),
  ];
  holder.append(...parts.filter(Boolean));
}

function collapse(holder, height) {
  holder.querySelector(".expand")?.remove();
  const plots = holder.querySelector(".plots");
  const isLong = height > COLLAPSED * 1.25;
  plots.classList.toggle("collapsed", isLong && !plots.dataset.open);
  if (!isLong || plots.dataset.open) return;
  const onclick = () => {
    plots.dataset.open = "1";
    collapse(holder, height);
  };
  const text = `Show all ${Math.round((height - HEAD) / LINE)} cells`;
  holder.append(h("button", { type: "button", class: "expand", onclick }, text));
}

function drawChart(chart, holder) {
  if (!holder.firstChild) build(chart, holder);
  const variant = variantOf(chart);
  const notes = [
    ...(variant.layout.meta?.notes ?? []),
    ...(chart.follows_limit ? missingNote() : []),
  ];
  holder.querySelector(".chart-notes").replaceChildren(...notes.map(noteText));
  const [traces, layout] = drawn(chart, variant);
  plot(holder.querySelector(".plots > div"), traces, layout);
  if (chart.kind !== "lines") return;
  holder.querySelector(".axis-title").textContent = variant.layout.xaxis.title.text;
  collapse(holder, layout.height);
}

/* Places without a chart are hidden, and so are sections without any. */
export function hideEmpty() {
  for (const holder of document.querySelectorAll("[data-figure]")) {
    const section = holder.closest("section");
    const frame = holder.closest("figure") ?? section;
    frame.hidden = !(holder.dataset.figure in DATA.figures);
    if (frame === section) continue;
    section.hidden = [...section.querySelectorAll("figure")].every((figure) => figure.hidden);
  }
}

function drawCharts(isWanted) {
  for (const holder of document.querySelectorAll("[data-figure]")) {
    const chart = DATA.figures[holder.dataset.figure];
    if (chart && isWanted(chart)) drawChart(chart, holder);
  }
}
export const drawLimitCharts = () => drawCharts((chart) => chart.follows_limit);
export const drawOtherCharts = () => drawCharts((chart) => !chart.follows_limit);
