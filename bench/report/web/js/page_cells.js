/* Cells one by one: the table, the tail, a cell's own page, downloads; and the start of everything. */
const COLUMNS = [
  ["cell", (row) => label(row), "left"],
  ["img/s", (row) => row.throughput_img_per_s, "number", (row) => [sig(row.throughput_img_per_s), h("span", { class: "ci" }, ` ${range(row.throughput_img_per_s_low, row.throughput_img_per_s_high)}`)]],
  ["req/s", (row) => row.throughput_req_per_s, "number"],
  ...(ROWS.some((row) => row.goodput_img_per_s !== null) ? [["goodput", (row) => row.goodput_img_per_s, "number"]] : []),
  ["p50 ms", (row) => latency(row, 50), "number", (row) => tailCell(row, 50)],
  ["p90 ms", (row) => latency(row, 90), "number", (row) => tailCell(row, 90)],
  ["p99 ms", (row) => latency(row, 99), "number", (row) => tailCell(row, 99)],
  ["n", (row) => row.latency_n, "number", (row) => count(row.latency_n)],
  ["errors", (row) => row.errors, "number", (row) => (row.errors ? count(row.errors) : "0")],
  ["queue ms", (row) => row.server_queue_ms, "number"],
  ["infer ms", (row) => row.server_compute_infer_ms, "number"],
  ["executed batch", (row) => row.executed_batch_mean, "number"],
  ["verdict", (row) => row.verdict, "left", (row) => h("span", { class: `tag ${row.verdict.split(" ")[0]}` }, row.verdict)],
  ["findings", (row) => row.findings || row.reason, "left", (row) => (row.findings || row.reason || "").split(" ").join(row.findings ? ", " : " ").slice(0, 60)],
];
const sorting = { column: null, down: false };
const tailCell = (row, percent) => {
  const value = latency(row, percent);
  return value !== null ? sig(value) : row.latency_n ? h("span", { class: "na", title: needs(row, percent) }, "n/a") : "";
};

function drawTable() {
  const rows = ROWS.filter(passes);
  if (sorting.column !== null) {
    const of = COLUMNS[sorting.column][1];
    rows.sort((a, b) => { const x = of(a), y = of(b); const order = x === null ? 1 : y === null ? -1 : typeof x === "string" ? x.localeCompare(y, "en", { numeric: true }) : x - y; return x === null || y === null || !sorting.down ? order : -order; });
  }
  const head = COLUMNS.map(([name, , kind], i) => h("th", { class: kind === "left" ? "left" : null, scope: "col", "aria-sort": sorting.column === i ? (sorting.down ? "descending" : "ascending") : null },
    h("button", { type: "button", onclick: () => { sorting.down = sorting.column === i ? !sorting.down : COLUMNS[i][2] === "number"; sorting.column = i; drawTable(); } }, name, sorting.column === i ? (sorting.down ? " ↓" : " ↑") : "")));
  const body = rows.map((row) => h("tr", { class: row.throughput_img_per_s ? null : "off", onclick: () => { location.hash = `cell-${row.index}`; } },
    COLUMNS.map(([name, of, kind, show], i) => h("td", { class: kind === "left" ? `left ${name}` : null }, i === 0 ? link(row) : show ? (row.throughput_img_per_s || i > 8 ? show(row) : "") : sig(of(row))))));
  $("table").replaceChildren(h("thead", {}, h("tr", {}, head)), h("tbody", {}, body));
}

/* The tail on an axis of 1 / (1 - p): every decade is one nine more. */
function drawTail(element, index) {
  const detail = DATA.details[index], row = ROWS[index];
  if (!detail || !detail.ladder.steps.length) { element.replaceChildren(h("p", { class: "note" }, "No requests to draw.")); return; }
  const { steps, carried, n } = detail.ladder, hue = DATA.keys.instances.find(([value]) => value === row.instances)[1];
  const part = (values, name, dash, tint, from, to, opacity) => ({ type: "scatter", mode: "lines", name, x: steps.slice(from, to), y: values.slice(from, to), opacity,
    line: { color: tint, dash, width: 2 }, text: steps.slice(from, to).map((s, i) => `<b>p${sig(100 - 100 / s, 5)}</b> ${name} ${sig(values[from + i])} ms<br>n ${count(n)}${from ? ", too few" : ""}`), hoverinfo: "text" });
  const traces = [["service_ms", "service", "dot", colour("muted")], ["response_ms", "response", "solid", hue]].flatMap(([key, name, dash, tint]) => {
    const values = detail.ladder[key];
    return [part(values, name, dash, tint, 0, carried, 1), ...(carried < steps.length ? [part(values, name, dash, tint, Math.max(0, carried - 1), steps.length, 0.3)] : [])];
  });
  const values = [...detail.ladder.response_ms, ...detail.ladder.service_ms].filter((v) => v > 0), flat = Math.max(...values) < 8 * Math.min(...values);
  const tickvals = [1, 2, 10, 20, 100, 1000, 10000, 100000].filter((v) => v <= steps[steps.length - 1] * 1.01);
  const layout = layoutOf({ height: 330, margin: { l: 52, r: 26, t: 10, b: 44 }, xaxis: { type: "log", tickvals, tickangle: 0, ticktext: tickvals.map((v) => (v === 1 ? (narrow() ? "" : "fastest") : v === 20 && narrow() ? "" : `p${sig(100 - 100 / v, 5)}`)) }, yaxis: { title: { text: flat ? "ms" : "ms (log)" }, type: flat ? "linear" : "log", rangemode: "tozero", ...(flat ? {} : logTicks(values)) } });
  plot(element, traces, layout);
}

const PANELS = [
  ["Requests a second", [["asked_per_s", "asked", "dot"], ["sent_per_s", "sent", "dash"], ["done_per_s", "done", "solid"], ["errors_per_s", "errors", "solid", "bad"]]],
  ["Response time, ms", [["p99_ms", "p99", "solid"], ["p50_ms", "p50", "dot"]]],
  ["Requests in flight", [["in_flight", "in flight", "solid"]]],
  ["CPU, cores", [["server_cpu_cores", "server", "solid"], ["client_cpu_cores", "load generator", "dot"]]],
  ["Machine, %", [["cpu_busy_percent", "CPU busy", "solid"], ["cpu_pressure_some_percent", "waiting for CPU", "dash"], ["cpu_steal_percent", "stolen", "dot"]]],
];
function panelsOf(lines, closed) {
  const gpus = [...new Set(Object.keys(lines).map((name) => name.match(/^gpu\d+/)?.[0]).filter(Boolean))];
  const rest = gpus.flatMap((gpu) => [["utilisation_percent", "utilisation, %"], ["power_w", "power, W"], ["sm_clock_mhz", "SM clock, MHz"], ["memory_clock_mhz", "memory clock, MHz"], ["temperature_c", "temperature, °C"]]
    .map(([name, title]) => [`${gpu.toUpperCase()} ${title}`, [[`${gpu}_${name}`, title, "solid"]]]));
  return [...PANELS, ...rest].map(([title, wanted]) => [title, wanted.filter(([name]) => !(closed && name === "asked_per_s") && lines[name]?.some((v) => v !== null && (v !== 0 || name !== "errors_per_s")))]).filter(([, wanted]) => wanted.length);
}
function drawSeries(holder, series, hue) {
  const [from, to] = series.window, t = series.t, end = t.length ? t[t.length - 1] + (t[1] - t[0]) / 2 : to;
  const outside = (x0, x1) => ({ type: "rect", xref: "x", yref: "paper", x0, x1, y0: 0, y1: 1, fillcolor: colour("sunken"), line: { width: 0 }, layer: "below" });
  const holders = panelsOf(series.lines, ROWS[Number($("cell").dataset.index)].rate_per_s === null).map(([title, wanted]) => {
    const element = h("div");
    const names = wanted.length > 1 ? h("span", {}, wanted.map(([, name, dash, tint]) => h("span", { class: "key", style: tint ? `color: var(--${tint})` : null }, `${{ solid: "—", dash: "– –", dot: "···" }[dash]} ${name}`))) : null;
    return { element, title, wanted, figure: h("figure", {}, h("figcaption", {}, title, names), element) };
  });
  holder.replaceChildren(...holders.map((entry) => entry.figure));
  for (const { element, title, wanted } of holders) {
    const traces = wanted.map(([name, text, dash, tint]) => ({ type: "scatter", mode: "lines", name: text, x: t, y: series.lines[name], connectgaps: true, line: { color: tint ? colour(tint) : dash === "solid" ? hue : colour("muted"), dash, width: 1.6 },
      text: series.lines[name].map((v) => `${text} ${sig(v)}`), hoverinfo: "text" }));
    const seen = wanted.flatMap(([name]) => series.lines[name].filter(Boolean)), steep = title.startsWith("Response") && Math.max(...seen) > 20 * Math.min(...seen);
    const layout = layoutOf({ height: 170, margin: { l: 44, r: 8, t: 6, b: 30 }, hovermode: "x", xaxis: { range: [0, end], ticksuffix: " s" }, yaxis: steep ? { type: "log", ...logTicks(seen) } : { rangemode: "tozero", nticks: 5 } });
    plot(element, traces, { ...layout, shapes: [outside(0, from), outside(to, end)] });
  }
}

function pairs(entries) {
  return h("dl", { class: "pairs" }, entries.filter(([, value]) => value !== null && value !== undefined && value !== "").flatMap(([name, value]) => [h("dt", {}, name), h("dd", {}, value)]));
}
function facts(row) {
  const bounds = (low, high) => (range(low, high) ? ` (${range(low, high)})` : "");
  const p = (percent) => { const v = latency(row, percent); return v === null ? needs(row, percent) : `${sig(v)} ms${bounds(row[`latency_p${percent}_ms_low`] ?? null, row[`latency_p${percent}_ms_high`] ?? null)}`; };
  return [["through", row.way], ["throughput", `${sig(row.throughput_img_per_s)} img/s${bounds(row.throughput_img_per_s_low, row.throughput_img_per_s_high)}`], ["", `${sig(row.throughput_req_per_s)} req/s`],
    ...DATA.percents.map((percent) => [`p${percent}`, p(percent)]), ["requests", `${count(row.requests)} in ${plural(row.repeats, "repeat")}, ${plural(row.errors, "error")}`],
    ["send lateness p99", row.lateness_p99_ms === null ? null : ms(row.lateness_p99_ms)], ["goodput", row.goodput_img_per_s === null ? null : `${sig(row.goodput_img_per_s)} img/s within ${DATA.runs[row.run].slo}`],
    ["mean executed batch", sig(row.executed_batch_mean)], ["client CPU", row.client_cpu_cores === null ? null : `${sig(row.client_cpu_cores, 2)} cores`],
    ["server CPU", row.server_cpu_cores === null ? null : `${sig(row.server_cpu_cores, 2)} cores`], ["GPU", row.gpu_utilisation_percent === null && row.gpu_power_w === null ? null : [[row.gpu_utilisation_percent, "%"], [row.gpu_power_w, "W"], [row.gpu_sm_clock_mhz, "MHz"], [row.gpu_temperature_c, "°C"], [row.gpu_energy_j_per_img, "J/image"], [row.gpu_img_per_s_per_w, "img/s/W"]].filter(([value]) => value !== null).map(([value, unit]) => `${sig(value)} ${unit}`).join(", ")],
    ["tensors on the wire", row.wire_in_bytes_per_s === null && row.wire_out_bytes_per_s === null ? null : [[row.wire_in_bytes_per_s, "in"], [row.wire_out_bytes_per_s, "out"]].filter(([bytes]) => bytes !== null).map(([bytes, way]) => `${sig(bytes / 1e6)} MB/s ${way}`).join(", ")],
    ["bare model", row.bare_img_per_s === null ? null : `${sig(row.bare_img_per_s)} img/s; served ${sig(100 * row.efficiency)} % of it${row.roofline_img_per_s === null ? "" : `; roofline ${sig(row.roofline_img_per_s)} img/s, ${sig((100 * row.bare_img_per_s) / row.roofline_img_per_s)} % reached by the bare model`}`],
    ["limited by (inferred)", row.wall_reason]];
}

/* The address names the cell, so that a link to it opens it. */
function openCell(index) { if (location.hash === `#cell-${index}`) showCell(index); else location.hash = `cell-${index}`; }
function followHash() {
  const found = location.hash.match(/^#cell-(\d+)$/);
  if (found && ROWS[Number(found[1])]) showCell(Number(found[1]));
  else if ($("cell").open) $("cell").close();
}
let opener = null;
function showCell(index) {
  const row = ROWS[index], detail = DATA.details[index];
  const series = h("div", { class: "pair" }), tail = h("div"), hue = DATA.keys.instances.find(([value]) => value === row.instances)[1];
  const body = [h("header", {}, h("div", {}, h("h2", { id: "cell-h" }, label(row)), h("span", { class: `tag ${row.verdict.split(" ")[0]}` }, row.verdict), h("span", { class: "note" }, `  ${row.cell}`)),
    h("button", { type: "button", onclick: () => $("cell").close() }, "Close"))];
  if (detail && row.reason) body.push(h("p", {}, row.reason));
  if (!detail) body.push(h("p", {}, row.reason));
  else body.push(
    h("div", { class: "columns" }, h("div", {}, h("h3", {}, "Figures"), pairs(facts(row))), h("div", {}, h("h3", {}, "Findings"), ...findingsOf(detail), ...errorsOf(detail))),
    h("h3", {}, "Over time"), h("p", { class: "note" }, "Grey: warm-up and drain, in no figure. p99 of a bin with fewer than 100 requests is its slowest."), seriesPick(detail, series, hue), series,
    h("h3", {}, "Tail"), tail, h("h3", {}, "Executed batches"), batchesOf(row));
  body.push(h("h3", {}, "Measure it again"), h("pre", {}, DATA.commands[index]));
  if (detail?.engine.command) body.push(h("h3", {}, "The engine’s own command"), h("pre", {}, detail.engine.command));
  if (!$("cell").open) opener = document.activeElement;
  $("cell").replaceChildren(...body.filter(Boolean));
  $("cell").dataset.index = index;
  if (!$("cell").open) $("cell").showModal();
  $("cell").scrollTop = 0;
  if (detail) { if (detail.series.length) drawSeries(series, detail.series[0], hue); drawTail(tail, index); }
}
function seriesPick(detail, holder, hue) {
  if (detail.series.length < 2) return h("p", { class: "note" }, detail.series.length ? `Repeat ${detail.series[0].repeat + 1}${detail.repeats > 1 ? `, the one of median throughput of ${detail.repeats}` : ""}.` : "");
  const buttons = detail.series.map((series, i) => h("button", { type: "button", "aria-pressed": String(i === 0), onclick: () => { buttons.forEach((b, k) => b.setAttribute("aria-pressed", String(k === i))); drawSeries(holder, series, hue); } }, `repeat ${series.repeat + 1}`));
  return h("div", { class: "switch", role: "group" }, buttons);
}
const findingsOf = (detail) => (detail.findings.length ? detail.findings.map((f) => h("div", { class: "finding" }, h("span", { class: `tag ${f.severity}` }, f.severity), h("b", {}, ` ${f.code} `), h("span", { class: "note" }, `repeat ${f.repeats.map((r) => r + 1).join(", ")}`), h("br"), f.seen, " ", f.cause, h("b", {}, " Next: "), f.next_step)) : [h("p", { class: "note" }, "None.")]);
const errorsOf = (detail) => (Object.keys(detail.errors).length ? [h("h3", {}, "Errors"), h("ul", {}, Object.entries(detail.errors).map(([message, n]) => h("li", {}, `${count(n)} × ${message}`)))] : []);
const batchesOf = (row) => (Object.keys(row.batches).length ? h("div", { class: "scroll" }, h("table", { style: "width:auto" }, h("thead", {}, h("tr", {}, ["size", "executions", "mean compute, ms", "ms an image"].map((name) => h("th", { scope: "col" }, name)))),
  h("tbody", {}, Object.entries(row.batches).map(([size, [n, ns]]) => h("tr", {}, [size, count(n), sig(ns / n / 1e6), sig(ns / n / 1e6 / size)].map((v) => h("td", {}, String(v)))))))) : h("p", { class: "note" }, "The server does not tell."));

$("cell").addEventListener("click", (event) => { if (event.target === $("cell")) $("cell").close(); });
$("cell").addEventListener("close", () => {
  $("cell").replaceChildren();
  if (location.hash.startsWith("#cell-")) history.replaceState(null, "", location.pathname + location.search);
  opener?.focus?.({ preventScroll: true });
});
window.addEventListener("hashchange", followHash);

function download(name, type, text) {
  const url = URL.createObjectURL(new Blob([text], { type }));
  h("a", { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 1000);
}
$("download-csv").addEventListener("click", () => download("cells.csv", "text/csv", DATA.csv));
$("download-json").addEventListener("click", () => download("cells.json", "application/json", JSON.stringify(ROWS.map(({ index, facets, ...row }) => row), null, 1)));

function drawTailSection() {
  const measured = ROWS.filter((row) => passes(row) && DATA.details[row.index]?.ladder.steps.length);
  $("tail").hidden = !measured.length;
  if (!measured.length) return;
  const now = $("tail-cell").value, best = decide(state.percent, state.bound).best ?? measured[0];
  $("tail-cell").replaceChildren(...measured.map((row) => h("option", { value: row.index }, label(row))));
  $("tail-cell").value = measured.some((row) => String(row.index) === now) ? now : String(best.index);
  drawTail($("tail-figure"), Number($("tail-cell").value || measured[0].index));
}
$("tail-cell").addEventListener("change", (event) => drawTail($("tail-figure"), Number(event.target.value)));

function drawAgreement() {
  const verdicts = FIGURES.agreement?.verdicts ?? [], counts = ["agree", "differ", "unclear"].map((word) => [word, verdicts.filter(([v]) => v === word)]);
  $("agreement-table").replaceChildren(...counts.filter(([, found]) => found.length).map(([word, found]) => h("p", {}, h("b", {}, `${plural(found.length, "cell")}: ${word}`), word === "agree" ? "" : [": ", ...found.flatMap(([, index], i) => [i ? ", " : "", link(ROWS[index])])])));
}

function refresh() {
  setLimit(); answer(); drawTrust(); drawTable();
  document.querySelectorAll("[data-figure]").forEach((holder) => { if (holder.dataset.figure !== "tradeoff" || !FIGURES.tradeoff) drawFigure(holder); });
  drawTailSection(); drawAgreement();
  if ($("cell").open) showCell(Number($("cell").dataset.index));
}
function drawContents() {
  const sections = [...document.querySelectorAll("main > section")].filter((section) => !section.hidden);
  $("contents").replaceChildren(...sections.map((section) => h("li", {}, h("a", { href: `#${section.id}` }, section.querySelector("h2").textContent))));
  const links = [...$("contents").querySelectorAll("a")];
  const mark = () => {
    const now = sections.filter((section) => section.getBoundingClientRect().top < 140).pop() ?? sections[0];
    links.forEach((a, i) => a.classList.toggle("here", sections[i] === now));
  };
  document.addEventListener("scroll", mark, { passive: true });
  mark();
}
let wide = !narrow();
window.addEventListener("resize", () => { if (wide === narrow()) { wide = !narrow(); refresh(); } });
drawReading();
refresh();
drawContents();
followHash();
document.documentElement.dataset.shown = "1";
performance.mark("text");
setTimeout(drawRest, 150); // after what is in sight was painted
