/* One trial over time: requests, latency, CPU and GPU, with warm-up and drain in grey. */
import { colour, h } from "./dom.js";
import { sig } from "./format.js";
import { layoutOf, plot } from "./plot.js";
import { logTicks } from "./ticks.js";

/* Panels, each with its lines: the name of the number, what it is called, its dash, and its colour. */
const PANELS = [
  {
    title: "Requests per second",
    lines: [
      ["asked_per_s", "asked", "dot"],
      ["sent_per_s", "sent", "dash"],
      ["done_per_s", "done", "solid"],
      ["errors_per_s", "errors", "solid", "bad"],
    ],
  },
  {
    title: "Failed requests per second, by kind",
    lines: [
      ["errors_server_error_per_s", "server error", "solid", "bad"],
      ["errors_connection_per_s", "broken connection", "dash", "bad"],
      ["errors_timeout_per_s", "timeout", "dot", "bad"],
      ["errors_wrong_answer_per_s", "wrong answer", "solid", "warn"],
      ["errors_unfinished_per_s", "unfinished at the end", "dash", "warn"],
      ["errors_client_per_s", "own limit", "dot", "warn"],
    ],
  },
  {
    title: "Response time, ms",
    mayBeSteep: true,
    lines: [
      ["p99_ms", "p99", "solid"],
      ["p50_ms", "p50", "dot"],
    ],
  },
  { title: "Requests in flight", lines: [["in_flight", "in flight", "solid"]] },
  {
    title: "CPU, cores",
    lines: [
      ["server_cpu_cores", "server", "solid"],
      ["client_cpu_cores", "load generator", "dot"],
    ],
  },
  {
    title: "Machine, %",
    lines: [
      ["cpu_busy_percent", "CPU busy", "solid"],
      ["cpu_pressure_some_percent", "waiting for CPU", "dash"],
      ["cpu_steal_percent", "stolen", "dot"],
    ],
  },
];
const GPU_NUMBERS = [
  ["utilisation_percent", "utilisation, %"],
  ["power_w", "power, W"],
  ["sm_clock_mhz", "SM clock, MHz"],
  ["memory_clock_mhz", "memory clock, MHz"],
  ["temperature_c", "temperature, °C"],
];
const KEYS = { solid: "—", dash: "– –", dot: "···" };

function gpuPanels(names) {
  const gpus = new Set(names.map((name) => name.match(/^gpu\d+/)?.[0]).filter(Boolean));
  return [...gpus].flatMap((gpu) =>
    GPU_NUMBERS.map(([name, title]) => ({
      title: `${gpu.toUpperCase()} ${title}`,
      lines: [[`${gpu}_${name}`, title, "solid"]],
    })),
  );
}

/* The panels that have something to show. In a closed loop nothing is asked for; without errors there is
   no line of zeros. */
function panelsOf(lines, isClosedLoop) {
  const isShown = ([name]) => {
    if (isClosedLoop && name === "asked_per_s") return false;
    return lines[name]?.some((v) => v !== null && (v !== 0 || !name.startsWith("errors_")));
  };
  return [...PANELS, ...gpuPanels(Object.keys(lines))]
    .map((panel) => ({ ...panel, lines: panel.lines.filter(isShown) }))
    .filter((panel) => panel.lines.length);
}

function caption({ title, lines }) {
  if (lines.length < 2) return h("figcaption", {}, title);
  const keys = lines.map(([, name, dash, tint]) =>
    h("span", { class: "key", style: tint && `color: var(--${tint})` }, `${KEYS[dash]} ${name}`),
  );
  return h("figcaption", {}, title, h("span", {}, keys));
}

function drawPanel(element, { lines, mayBeSteep }, series, hue) {
  const { t: times, window } = series;
  const [from, to] = window;
  const end = times.length ? times.at(-1) + (times[1] - times[0]) / 2 : to;
  const traces = lines.map(([name, text, dash, tint]) => {
    const ownColour = dash === "solid" ? hue : colour("muted");
    return {
      type: "scatter",
      mode: "lines",
      name: text,
      x: times,
      y: series.lines[name],
      connectgaps: true,
      line: { color: tint ? colour(tint) : ownColour, dash, width: 1.6 },
      text: series.lines[name].map((v) => `${text} ${sig(v)}`),
      hoverinfo: "text",
    };
  });
  const values = lines.flatMap(([name]) => series.lines[name].filter(Boolean));
  const isSteep = mayBeSteep && Math.max(...values) > 20 * Math.min(...values);
  const look = {
    xref: "x",
    yref: "paper",
    y0: 0,
    y1: 1,
    fillcolor: colour("sunken"),
    line: { width: 0 },
  };
  const outside = (x0, x1) => ({ type: "rect", layer: "below", ...look, x0, x1 });
  const layout = layoutOf({
    height: 170,
    margin: { l: 44, r: 8, t: 6, b: 30 },
    hovermode: "x",
    xaxis: { range: [0, end], ticksuffix: " s" },
    yaxis: isSteep ? { type: "log", ...logTicks(values) } : { rangemode: "tozero", nticks: 5 },
    shapes: [outside(0, from), outside(to, end)],
  });
  plot(element, traces, layout);
}

export function drawSeries(holder, series, { hue, isClosedLoop }) {
  const panels = panelsOf(series.lines, isClosedLoop);
  const places = panels.map(() => h("div"));
  holder.replaceChildren(...panels.map((panel, i) => h("figure", {}, caption(panel), places[i])));
  panels.forEach((panel, i) => {
    drawPanel(places[i], panel, series, hue);
  });
}
