/* Shared by all parts of the page: data, formatting, elements, theme, filters, drawing.
   Text from data enters the document as text nodes only, and Plotly's markup escaped. */
"use strict";
const DATA = JSON.parse(document.getElementById("data").textContent);
const ROWS = DATA.rows.map((values, index) => {
  const row = { index };
  DATA.columns.forEach((name, i) => { row[name] = values[i]; });
  return row;
});
performance.mark("data");
const NEWEST = Math.max(0, ...ROWS.map((row) => row.run));
const ENGINE = [...new Set(ROWS.map((row) => row.engine))].sort()[0];
const $ = (id) => document.getElementById(id);
/* Of the theme; kept, since asking makes the browser work out all styles anew. */
const colours = new Map();
function colour(name) {
  if (!colours.has(name)) colours.set(name, getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim());
  return colours.get(name);
}
const narrow = () => window.innerWidth < 620;

function h(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value !== null && value !== undefined && value !== false) element.setAttribute(name, value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return element;
}
const escaped = (text) => String(text).replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");

/* Formats are made once: toLocaleString would make one a call, thousands while the page opens. */
const GROUPED = new Intl.NumberFormat("en", { maximumFractionDigits: 12 });
const PLAIN = new Intl.NumberFormat("en", { maximumFractionDigits: 12, useGrouping: false });
/* Three significant digits, never in scientific notation. */
function sig(value, digits = 3) {
  if (value === null || value === undefined) return "";
  if (value === 0) return "0";
  const rounded = Number(Number(value).toPrecision(digits));
  return (Math.abs(rounded) >= 10000 ? GROUPED : PLAIN).format(rounded);
}
const count = (value) => GROUPED.format(Number(value));
const plural = (n, word) => `${count(n)} ${word}${n === 1 ? "" : "s"}`;
const range = (low, high) => (low === null || high === null ? "" : `${sig(low)}–${sig(high)}`);
const ms = (value) => (value === 0 ? "0" : value >= 1000 ? `${sig(value / 1000)} s` : value >= 1 ? `${sig(value)} ms` : `${sig(value * 1000)} µs`);
const level = (row) => (row.rate_per_s !== null ? `${sig(row.rate_per_s)}/s` : plural(row.concurrency, "user"));
const parameters = (row) => Object.entries(row.parameters).map(([name, value]) => `${name} ${value}`);
const runName = (row) => (DATA.runs.length > 1 ? DATA.runs[row.run].name : null);
const varies = (name) => new Set(ROWS.map((row) => row[name])).size > 1;
const VARIES = Object.fromEntries(["max_batch", "max_queue_delay_us", "model"].map((name) => [name, varies(name)]));
const settings = (row) => [...parameters(row), VARIES.max_batch && row.max_batch !== null ? `max batch ${row.max_batch}` : null,
  !VARIES.max_queue_delay_us || row.max_queue_delay_us === null ? null : row.max_queue_delay_us < 0 ? "no dynamic batching" : `queue delay ${ms(row.max_queue_delay_us / 1000)}`];
const label = (row) => [VARIES.model ? row.model : null, `b${row.batch}`, row.replicas === null ? null : plural(row.replicas, "pod"), row.instances === null ? null : `${row.instances} inst`, row.protocol, level(row),
  ...settings(row), row.via === null ? null : `via ${row.via}`, row.shared_memory === "none" ? null : `${row.shared_memory} shm`,
  row.engine === ENGINE ? null : row.engine, runName(row)].filter(Boolean).join(" · ");
const named = (row) => [VARIES.model ? row.model : null, row.replicas === null ? null : plural(row.replicas, "replica"), row.instances === null ? null : plural(row.instances, "instance"), `batch ${row.batch}`,
  ...settings(row)].filter(Boolean).join(", ");
/* Of a chart's line: what is drawn needs room, too. */
function short(text) {
  const most = narrow() ? 34 : 64, brief = narrow() ? text.replace("perf_analyzer", "pa") : text;
  const known = brief.length > most && narrow() ? brief.replace(/ inst\b/, "i").replace(/ users?\b/, "u") : brief;
  return known.length > most ? `${known.slice(0, most - 1)}…` : known;
}
const latency = (row, percent) => row.latencies_ms[DATA.percents.indexOf(percent)] ?? null;
const needs = (row, percent) => `n/a (needs ${count(DATA.needed[DATA.percents.indexOf(percent)])}, has ${count(row.latency_n)})`;

function hover(row) {
  const ci = range(row.throughput_img_per_s_low, row.throughput_img_per_s_high);
  const tail = [50, 99].map((p) => {
    const value = latency(row, p);
    const bounds = range(row[`latency_p${p}_ms_low`], row[`latency_p${p}_ms_high`]);
    return `p${p} ${value === null ? needs(row, p) : `${sig(value)} ms${bounds && ` (${bounds})`}`}`;
  });
  const lines = [`<b>${escaped(label(row))}</b>${row.verdict === "VALID" ? "" : ` ${row.verdict}`}`,
    `${sig(row.throughput_img_per_s)} img/s${ci && ` (${ci})`} · ${sig(row.throughput_req_per_s)} req/s`,
    ...tail, `n ${count(row.latency_n)} in ${plural(row.repeats, "repeat")}${row.errors ? ` · ${plural(row.errors, "error")}` : ""}`];
  if (row.findings) lines.push(escaped(row.findings.split(" ").join(", ")));
  return lines.join("<br>");
}

/* Filters: what more than one value of was measured, beyond what the charts themselves show. */
const FACETS = (() => {
  const facets = new Map();
  for (const row of ROWS) {
    const values = { run: runName(row) ?? "", model: row.model, protocol: row.protocol, engine: row.engine,
      load: row.rate_per_s === null ? "closed loop" : "open loop", "shared memory": row.shared_memory, ...row.parameters };
    for (const [name, value] of Object.entries(values)) facets.set(name, (facets.get(name) ?? new Set()).add(value));
    row.facets = values;
  }
  return [...facets].filter(([, values]) => values.size > 1).map(([name, values]) => [name, [...values]]);
})();
const chosen = {};
const passes = (row) => Object.entries(chosen).every(([name, value]) => row.facets[name] === value);
const isMain = (row) => row.run === NEWEST && row.engine === (chosen.engine ?? ENGINE) && passes(row);

function drawReading() {
  const at = (x) => `translate(${x} 8)`;
  const glyph = (d, attributes = {}) => {
    const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
    svg.setAttribute("width", attributes.width ?? 16); svg.setAttribute("height", 16); svg.setAttribute("aria-hidden", "true");
    const path = document.createElementNS("http://www.w3.org/2000/svg", "path");
    Object.entries({ d, transform: at((attributes.width ?? 16) / 2), fill: attributes.fill ?? "currentColor", ...attributes }).forEach(([k, v]) => path.setAttribute(k, v));
    svg.append(path);
    return svg;
  };
  const shapes = { circle: "M0,4.5A4.5,4.5 0 1,1 0,-4.5A4.5,4.5 0 1,1 0,4.5Z", square: "M-4,-4H4V4H-4Z", diamond: "M0,-5.5L5.5,0L0,5.5L-5.5,0Z",
    "triangle-up": "M-5,4H5L0,-5Z", "triangle-down": "M-5,-4H5L0,5Z", star: "M0,-6L1.5,-2L6,-2L2.4,0.8L3.7,5L0,2.4L-3.7,5L-2.4,0.8L-6,-2L-1.5,-2Z",
    hexagon: "M5,0L2.5,4.3H-2.5L-5,0L-2.5,-4.3H2.5Z", cross: "M-1.6,-5H1.6V-1.6H5V1.6H1.6V5H-1.6V1.6H-5V-1.6H-1.6Z" };
  const line = (dash) => glyph("M-13,0H13", { width: 28, fill: "none", stroke: "currentColor", "stroke-width": 2, "stroke-dasharray": dash });
  const item = (svg, text) => h("i", {}, svg, text);
  const parts = [h("span", {}, "Instances", DATA.keys.instances.map(([value, hue]) => item(glyph("M-5,-5H5V5H-5Z", { fill: hue }), value ?? "as served"))),
    h("span", {}, "Batch", DATA.keys.batches.map(([value, shape]) => item(glyph(shapes[shape]), value)))];
  const protocols = [...new Set(ROWS.map((row) => row.protocol))];
  if (protocols.length > 1) parts.push(h("span", {}, "Protocol", item(line(""), "http"), item(line("6 4"), "grpc")));
  if (ROWS.some((row) => row.verdict === "INVALID")) parts.push(h("span", {}, item(glyph(shapes.circle, { fill: "none", stroke: "currentColor", "stroke-width": 1.4 }), "hollow: INVALID")));
  if (new Set(ROWS.map((row) => row.engine)).size > 1) parts.push(h("span", {}, item(glyph(shapes.circle, { opacity: 0.4 }), "faint: perf_analyzer (pa)")));
  if (DATA.runs.length > 1) parts.push(h("span", {}, item(glyph(shapes.circle, { opacity: 0.4 }), `faint: ${DATA.runs.slice(0, -1).map((run) => run.name).join(", ")}`)));
  const selects = FACETS.map(([name, values]) => h("label", { class: "pick" }, name,
    h("select", { "data-facet": name, onchange: (event) => { if (event.target.value === "*") delete chosen[name]; else chosen[name] = values[event.target.value]; refresh(); } },
      h("option", { value: "*" }, "all"), values.map((value, i) => h("option", { value: i }, value)))));
  $("reading").replaceChildren(...parts, h("span", { class: "filters" }, selects));
}

/* Drawing. */
const FIGURES = Object.fromEntries(DATA.figures.map((figure) => [figure.id, figure]));
const picked = {};
/* Ticks of a log axis: as many a decade as there is room for. */
function logTicks(values) {
  const known = values.filter((v) => v > 0), span = Math.log10(Math.max(...known) / Math.min(...known));
  const steps = span < (narrow() ? 0.45 : 1) ? [1, 1.5, 2, 3, 4, 5, 7] : span < 1.4 < 2 || !narrow() ? [1, 2, 5] : [1];
  const ticks = [];
  for (let e = -4; e < 8; e++) for (const m of steps) ticks.push(m * 10 ** e);
  return { tickvals: ticks, ticktext: ticks.map((v) => sig(v)), tickangle: 0 };
}

function axis(given = {}, extra = {}) {
  const base = { gridcolor: colour("line"), linecolor: colour("strong"), zerolinecolor: colour("strong"), zeroline: false,
    tickcolor: colour("strong"), ticks: "outside", ticklen: 4, automargin: true, showline: false, ...extra, ...given };
  base.title = { ...(given.title ?? {}), font: { size: 12, color: colour("muted") }, standoff: 10 };
  delete base.mark;
  if (base.ticktext) base.ticktext = base.ticktext.map(escaped);
  return base;
}

function layoutOf(given, extra = {}) {
  return { paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", showlegend: false, hovermode: "closest", dragmode: narrow() ? false : "zoom",
    font: { family: colour("sans"), size: 12, color: colour("muted") }, margin: { l: 52, r: 14, t: 10, b: 44 },
    hoverlabel: { bgcolor: colour("surface"), bordercolor: colour("strong"), font: { family: colour("sans"), size: 12.5, color: colour("ink") }, align: "left" },
    ...given, ...extra, ...(printing ? { width: SHEET, autosize: false } : { width: undefined, autosize: true }), xaxis: axis(given.xaxis), yaxis: axis(given.yaxis) };
}

const at = (values, kept) => (Array.isArray(values) ? kept.map((i) => values[i]) : values);
function filtered(trace) {
  if (!trace.customdata) return trace;
  const kept = trace.customdata.flatMap((index, i) => (passes(ROWS[index]) ? [i] : []));
  const whisker = (bars) => bars && { ...bars, array: at(bars.array, kept), arrayminus: at(bars.arrayminus, kept) };
  return { ...trace, x: at(trace.x, kept), y: at(trace.y, kept), customdata: at(trace.customdata, kept),
    ...(trace.error_x && { error_x: whisker(trace.error_x) }), ...(trace.error_y && { error_y: whisker(trace.error_y) }),
    ...(trace.marker && { marker: { ...trace.marker, symbol: at(trace.marker.symbol, kept), color: at(trace.marker.color, kept) } }),
    ...(trace.hoverinfo === "skip" ? {} : { text: kept.map((i) => hoverOf(trace, i)), hoverinfo: "text", textposition: "none" }) };
}
function hoverOf(trace, i) {
  const row = ROWS[trace.customdata[i]];
  const said = trace.name ? `<br>${escaped(trace.name)}: ${sig(trace.x[i])}` : "";
  return trace.type === "bar" ? `<b>${escaped(label(row))}</b>${said}<br>n ${count(row.latency_n)} · ${sig(row.throughput_img_per_s)} img/s · ${sig(row.throughput_req_per_s)} req/s` : trace.hover ? `${escaped(trace.hover[i])}<br>${hover(row)}` : hover(row);
}

/* Ticks of ratios around 1: round ones first, then as many as there is room for. */
const RATIOS = [1, 0.5, 2, 0.8, 1.25, 0.9, 1.1, 0.95, 1.05, 0.98, 1.02, 0.67, 1.5, 0.25, 4];
function ratioTicks(traces) {
  const ends = traces.flatMap(({ x, error_x: bars }) => x.flatMap((v, i) => [v - (bars?.arrayminus[i] ?? 0), v + (bars?.array[i] ?? 0)])).filter((v) => v > 0);
  const low = Math.log(Math.min(1, ...ends)), high = Math.log(Math.max(1, ...ends)), room = narrow() ? 150 : 800;
  const at = (v) => (room * (Math.log(v) - low)) / Math.max(high - low, 0.02), ticks = [];
  for (const v of RATIOS) if (at(v) > -20 && at(v) < room + 20 && ticks.every((other) => Math.abs(at(v) - at(other)) > 38)) ticks.push(v);
  return { tickvals: ticks, ticktext: ticks.map(String), tickangle: 0 };
}

/* Figures with a line of text a row lose the lines that a filter takes away. */
function compacted(traces, layout, rows) {
  if (!rows) return [traces, layout];
  const used = [...new Set(traces.flatMap((trace) => trace.y))].sort((a, b) => a - b);
  const place = new Map(used.map((y, i) => [y, i]));
  const ticktext = used.map((y) => short(label(ROWS[rows[y]])));
  const mark = layout.xaxis.mark;
  if (mark !== undefined) layout = { ...layout, xaxis: { ...layout.xaxis, ...ratioTicks(traces) } };
  const shapes = mark === undefined ? [] : [{ type: "line", xref: "x", yref: "paper", x0: mark, x1: mark, y0: 0, y1: 1, line: { color: colour("muted"), width: 1 } }];
  return [traces.map((trace) => ({ ...trace, y: trace.y.map((y) => place.get(y) + (trace.nudge ?? 0)) })),
    { ...layout, shapes, height: used.length * 21 + 42, margin: { l: 52, r: 18, t: 24, b: 10 }, xaxis: { ...layout.xaxis, title: undefined }, yaxis: { ...layout.yaxis, tickvals: used.map((_, i) => i), ticktext, range: [used.length - 0.4, -0.6], autorange: false, tickfont: { size: narrow() ? 9.5 : 11.5 } } }];
}

/* Opening draws what is in sight first, and the rest one chart at a time while nothing else is to do. */
const waiting = new Map();
const sight = new IntersectionObserver((entries) => {
  for (const { target, isIntersecting } of entries) if (isIntersecting && waiting.has(target)) drawNow(target);
  performance.mark("sight");
}, { rootMargin: "200px" });
function drawNow(element) {
  const draw = waiting.get(element);
  waiting.delete(element);
  sight.unobserve(element);
  draw();
}
function drawAll() { for (const element of [...waiting.keys()]) drawNow(element); }
function drawRest() {
  const next = waiting.keys().next();
  if (next.done) { document.documentElement.dataset.ready = "1"; performance.mark("ready"); return; }
  drawNow(next.value);
  setTimeout(drawRest, 0);
}

function plot(element, traces, layout) {
  element.style.width = printing ? `${SHEET}px` : "";
  element.style.height = `${layout.height}px`; // a plot that follows its width takes its height from here
  const config = { displayModeBar: false, responsive: true, doubleClick: "reset" };
  const draw = () => {
    Plotly.react(element, traces, layout, config);
    if (element.dataset.listens) return;
    element.dataset.listens = "1";
    element.on?.("plotly_click", (event) => { const index = event.points[0].customdata; if (index !== undefined && index !== null) openCell(index); });
  };
  if (element.dataset.listens || element.closest("dialog") || document.documentElement.dataset.ready) { draw(); return; }
  waiting.set(element, draw);
  sight.observe(element);
}

function drawFigure(holder) {
  const figure = FIGURES[holder.dataset.figure];
  const frame = holder.closest("figure") ?? holder.closest("section"), section = holder.closest("section");
  frame.hidden = !figure;
  if (frame !== section) section.hidden = [...section.querySelectorAll("figure")].every((one) => one.hidden);
  if (!figure) return;
  if (!holder.firstChild) {
    const plots = h("div", { class: "plots" }, h("div"));
    const notes = figure.notes?.length ? h("p", { class: "note" }, figure.notes.flatMap((text) => [text, h("br")])) : null;
    const axisTitle = figure.rows ? h("p", { class: "note axis-title" }) : null; // text that wraps where a chart's would be cut
    holder.append(...[switchOf(figure, holder), legendOf(figure), axisTitle, plots, notes].filter(Boolean));
  }
  const variant = figure.variants[figure.id === "tradeoff" ? DATA.percents.indexOf(state.percent) : picked[figure.id] ?? 0];
  if (figure.rows) holder.querySelector(".axis-title").textContent = variant.layout.xaxis.title.text;
  let [traces, layout] = compacted(variant.data.map(filtered).filter((trace) => trace.x.length), variant.layout, figure.rows);
  for (const [name, of] of [["xaxis", "x"], ["yaxis", "y"]])
    if (layout[name]?.type === "log" && !layout[name].tickvals) layout = { ...layout, [name]: { ...layout[name], ...logTicks(traces.flatMap((trace) => trace[of])) } };
  layout = clipped(traces, layout);
  layout = layoutOf(layout, figure.rows ? {} : { height: holder.classList.contains("tall") ? (narrow() ? 400 : 520) : 330 });
  if (figure.id === "tradeoff") [traces, layout] = withAnswer(traces, layout);
  plot(holder.querySelector(".plots > div"), traces, layout);
  if (figure.rows) fold(holder, layout.height);
}

/* Long charts start folded. */
const FOLDED = 560;
function fold(holder, height) {
  holder.querySelector(".fold")?.remove();
  const plots = holder.querySelector(".plots"), long = height > FOLDED * 1.25;
  plots.classList.toggle("folded", long && !plots.dataset.open);
  if (!long || plots.dataset.open) return;
  const rows = Math.round((height - 42) / 21);
  holder.append(h("button", { type: "button", class: "fold", onclick: () => { plots.dataset.open = "1"; fold(holder, height); } }, `Show all ${rows} cells`));
}

/* Whiskers much longer than all points are high leave the chart at its top, lest they flatten the rest. */
function clipped(traces, layout) {
  const top = Math.max(...traces.flatMap((trace) => trace.y));
  const reach = Math.max(...traces.flatMap((trace) => (trace.error_y?.array ?? []).map((up, i) => trace.y[i] + up)));
  return layout.yaxis.rangemode === "tozero" && reach > 1.7 * top ? { ...layout, yaxis: { ...layout.yaxis, range: [0, 1.35 * top] } } : layout;
}

function switchOf(figure, holder) {
  if (figure.variants.length < 2 || figure.id === "tradeoff") return null;
  if (figure.variants.length > 6)
    return h("label", { class: "pick" }, "load", h("select", { onchange: (event) => { picked[figure.id] = Number(event.target.value); drawFigure(holder); } },
      figure.variants.map((variant, i) => h("option", { value: i }, variant.label))));
  const buttons = figure.variants.map((variant, i) => h("button", { type: "button", "aria-pressed": String(i === (picked[figure.id] ?? 0)),
    onclick: () => { picked[figure.id] = i; buttons.forEach((b, k) => b.setAttribute("aria-pressed", String(k === i))); drawFigure(holder); } }, variant.label));
  return h("div", { class: "switch", role: "group" }, buttons);
}
function legendOf(figure) {
  if (!figure.legend) return null;
  return h("div", { class: "legend" }, figure.legend.map(([name, hue]) => h("span", {}, h("i", { style: `background:${hue}` }), name)));
}
