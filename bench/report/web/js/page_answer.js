/* The answer: which configuration, under a limit on latency; the front, the heat map, and whether to trust it. */
const LIMIT = { low: 0, high: 1 };
const state = { percent: DATA.limit?.percent ?? DATA.percent, bound: DATA.limit?.bound_ms ?? null, heat: 0 };
const ALLOWED_ERRORS = DATA.limit?.error_fraction ?? 0;

/* yes: proved by the samples; likely: the figure is within, the samples do not prove it; no; unknown. */
function holds(row, percent, bound) {
  if (bound === null) return "yes";
  if (row.errors / Math.max(1, row.errors + row.latency_n) > ALLOWED_ERRORS) return "no";
  const found = [[percent, bound], ...others(percent)].map(([p, ms]) => within(row, DATA.percents.indexOf(p), ms));
  return ["no", "unknown", "likely", "yes"].find((kind) => found.includes(kind));
}
function within(row, i, bound) {
  if (row.latencies_ms[i] === null) return "unknown";
  if (row.latencies_ms[i] > bound) return "no";
  return row.proved_ms[i] !== null && row.proved_ms[i] <= bound ? "yes" : "likely";
}
/* What else the SLO asks: the slider moves one percentile. */
const others = (percent) => (DATA.limit?.others ?? []).filter(([p]) => p !== percent);
const configuration = (row) => [row.model, row.replicas, row.instances, row.via, row.batch, row.protocol, row.shared_memory, JSON.stringify(row.parameters), row.max_batch, row.max_queue_delay_us].join("|");
const faster = (a, b) => b.throughput_img_per_s - a.throughput_img_per_s;

function decide(percent, bound) {
  const valid = ROWS.filter((row) => isMain(row) && row.verdict === "VALID" && row.throughput_img_per_s);
  const by = { yes: [], likely: [], no: [], unknown: [] };
  valid.forEach((row) => by[holds(row, percent, bound)].push(row));
  const fits = (by.yes.length ? by.yes : by.likely).sort(faster);
  const best = fits[0] ?? null;
  const next = fits.find((row) => configuration(row) !== configuration(best)) ?? null;
  const smallest = [...valid].sort((a, b) => a.batch - b.batch || (a.instances ?? 0) - (b.instances ?? 0))[0];
  const first = smallest && valid.filter((row) => row.batch === smallest.batch && row.instances === smallest.instances).sort(faster)[0];
  return { valid, by, best, next, first, proved: by.yes.length > 0 };
}

const link = (row, text) => h("a", { class: "link", href: `#cell-${row.index}` }, text ?? label(row));
const boundText = (percent = state.percent, bound = state.bound) => `p${percent} ≤ ${ms(bound)}`;
const limitText = () => [boundText(), ...others(state.percent).map(([percent, bound]) => boundText(percent, bound))].join(" and ");
function intervalOf(row) {
  const text = range(row.throughput_img_per_s_low, row.throughput_img_per_s_high);
  return text ? ` (${text})` : "";
}

function drawCard() {
  const d = decide(state.percent, state.bound);
  const items = DATA.headline ? [["", [DATA.headline]]] : [], root = document.documentElement.dataset;
  root.bound = state.bound ?? ""; root.best = d.best?.cell ?? "";
  if (!d.best) {
    const most = Math.max(0, ...d.by.unknown.map((row) => row.latency_n)), needed = DATA.needed[DATA.percents.indexOf(state.percent)];
    const why = !d.valid.length ? "Nothing valid was measured." : d.by.unknown.length ? `Too few samples to tell what holds ${limitText()}.` : `No measured configuration holds ${limitText()}.`;
    if (d.by.unknown.length) items.push(["warn", [`p${state.percent} needs ${count(needed)} requests; the most any of these cells has is ${count(most)}. Measure longer, or set the limit on a lower percentile.`]]);
    if (!d.valid.length) items.push(...blamed());
    const nearest = d.valid.filter((row) => latency(row, state.percent) !== null).sort((a, b) => latency(a, state.percent) - latency(b, state.percent))[0];
    if (nearest) items.push(["", ["Nearest: ", link(nearest), ` with p${state.percent} of ${ms(latency(nearest, state.percent))}.`]]);
    $("card").replaceChildren(h("p", { class: "headline" }, why), list([...items, ...limits(d)]));
    return;
  }
  const headline = h("p", { class: "headline" }, state.bound === null ? "For the most throughput run " : `For ${limitText()} run `,
    h("b", {}, named(d.best)), ` over ${d.best.protocol} at ${level(d.best)}: `, h("span", { class: "value" }, `${sig(d.best.throughput_img_per_s)} img/s`),
    h("span", { class: "range" }, intervalOf(d.best)));
  if (!d.proved) items.push(["warn", [`Likely, not proved: too few samples to prove ${limitText()} at 99 % confidence.`]]);
  const spread = d.best.throughput_img_per_s_high / d.best.throughput_img_per_s_low;
  if (spread > DATA.wide) items.push(["warn", [`Its interval spans a factor of ${sig(spread, 2)}: measure longer, with more repeats, or on a quieter machine.`]]);
  items.push(...confidence(d), ...limits(d));
  $("card").replaceChildren(...[headline, state.bound === null ? figures(d) : null, list(items)].filter(Boolean));
}
/* What made everything worthless, and what to do. */
function blamed() {
  const main = ROWS.filter((row) => row.run === NEWEST);
  const failed = main.filter((row) => row.verdict === "FAILED").slice(0, 1).map((row) => ["bad", [link(row), ` failed: ${row.reason}`]]);
  const seen = new Map(main.flatMap((row) => row.remarks.filter((finding) => finding.severity === "INVALID").map((finding) => [finding.code, finding])));
  return [...failed, ...[...seen.values()].map((finding) => ["bad", [h("b", {}, finding.code), `: ${finding.seen} ${finding.cause} ${finding.next_step}`]])];
}
const list = (items) => h("ul", {}, items.map(([kind, content]) => h("li", { class: kind }, content)));

function confidence(d) {
  const items = [];
  if (d.first && (d.first.batch !== d.best.batch || d.first.instances !== d.best.instances) && d.first.throughput_img_per_s > 0) {
    const times = d.best.throughput_img_per_s / d.first.throughput_img_per_s;
    items.push([times > 1 ? "good" : "", [`${sig(times, 2)}× the throughput of `, link(d.first, named(d.first)), ` (${sig(d.first.throughput_img_per_s)} img/s).`]]);
  }
  if (d.next) {
    const unknown = d.best.throughput_img_per_s_low === null || d.next.throughput_img_per_s_high === null;
    const apart = !unknown && d.best.throughput_img_per_s_low > d.next.throughput_img_per_s_high;
    const said = unknown ? "With fewer than three repeats nothing says how sure the order is." : apart ? "Their intervals do not overlap." : "Their intervals overlap: choose either.";
    items.push([apart ? "good" : "warn", ["Next best: ", link(d.next, `${named(d.next)} over ${d.next.protocol} at ${level(d.next)}`), `, ${sig(d.next.throughput_img_per_s)} img/s${intervalOf(d.next)}. ${said}`]]);
  } else if (d.best.throughput_img_per_s_low === null) items.push(["warn", ["Fewer than three repeats: no interval, figures are indicative."]]);
  return items;
}

function limits(d) {
  if (state.bound === null) return [];
  const said = [`${plural(d.by.yes.length, "cell")} of ${d.valid.length} ${d.by.yes.length === 1 ? "holds" : "hold"} the limit`];
  if (d.by.likely.length) said.push(`${d.by.likely.length} likely do`);
  if (d.by.no.length) said.push(`${d.by.no.length} ${d.by.no.length === 1 ? "misses" : "miss"} it`);
  if (d.by.unknown.length) said.push(`${d.by.unknown.length} ${d.by.unknown.length === 1 ? "has" : "have"} too few samples to tell`);
  return [["", [`${said.join(", ")}.`]]];
}

function figures(d) {
  const low = d.valid.filter((row) => latency(row, 50) !== null).sort((a, b) => latency(a, 50) - latency(b, 50))[0];
  const knee = d.valid.filter((row) => row.latency_mean_ms && row.throughput_img_per_s >= DATA.knee * d.best.throughput_img_per_s).sort((a, b) => a.latency_mean_ms - b.latency_mean_ms)[0];
  const box = (name, number, unit, row) => h("div", {}, h("div", { class: "name" }, name), h("div", { class: "number" }, number, h("small", {}, ` ${unit}`)), h("div", { class: "of" }, link(row)));
  const boxes = [box("Most throughput", sig(d.best.throughput_img_per_s), "img/s", d.best)];
  if (low) boxes.push(box("Lowest median latency", sig(latency(low, 50)), "ms", low));
  if (knee) boxes.push(box(`Knee: ${100 * DATA.knee} % of it, soonest`, sig(knee.throughput_img_per_s), `img/s at ${ms(knee.latency_mean_ms)} mean`, knee));
  return h("div", { class: "figures" }, boxes);
}

function drawTrust() {
  const main = ROWS.filter((row) => row.run === NEWEST);
  const by = new Map();
  for (const row of main) {
    if (row.verdict === "FAILED") note(by, { severity: "FAILED", code: "not measured", seen: row.reason, cause: "", next_step: "" }, row);
    for (const finding of row.remarks) note(by, finding, row);
  }
  const order = ["FAILED", "INVALID", "WARNING", "NOTE"];
  const entries = [...by.values()].sort((a, b) => order.indexOf(a.finding.severity) - order.indexOf(b.finding.severity) || b.rows.length - a.rows.length);
  const counts = ["VALID", "INVALID", "FAILED", "NOT RUN"].map((v) => [v, main.filter((row) => row.verdict === v).length]).filter(([, n]) => n);
  $("trust").replaceChildren(
    h("p", { class: "counts" }, counts.map(([verdict, n]) => h("span", {}, h("b", {}, count(n)), ` ${verdict}`)), h("span", {}, DATA.trust)),
    ...entries.map(({ finding, rows }) => h("details", {}, h("summary", {}, h("span", { class: `tag ${finding.severity}` }, finding.severity), ` ${finding.code} `, h("span", { class: "note" }, `· ${plural(rows.length, "cell")} · ${finding.seen}`)),
      h("div", { class: "finding" }, h("p", {}, h("b", {}, "Seen: "), finding.seen, finding.cause && h("b", {}, " Why: "), finding.cause, finding.next_step && h("b", {}, " Next: "), finding.next_step),
        h("p", {}, rows.slice(0, 12).flatMap((row, i) => [i ? ", " : "", link(row)]), rows.length > 12 ? ` and ${rows.length - 12} more` : "")))));
}
function note(by, finding, row) {
  const key = `${finding.severity}/${finding.code}/${finding.severity === "FAILED" ? finding.seen : ""}`;
  if (!by.has(key)) by.set(key, { finding, rows: [] });
  by.get(key).rows.push(row);
}

/* The front: cells that nothing else beats in both throughput and latency. */
function front(percent) {
  const points = ROWS.filter((row) => isMain(row) && row.verdict === "VALID" && row.throughput_img_per_s && latency(row, percent) !== null)
    .sort((a, b) => latency(a, percent) - latency(b, percent) || faster(a, b));
  let best = 0;
  return points.filter((row) => row.throughput_img_per_s > best && (best = row.throughput_img_per_s));
}

function withAnswer(traces, layout) {
  const line = front(state.percent), shown = traces.flatMap((trace) => trace.x);
  const added = [];
  if (line.length > 1) added.push({ type: "scatter", mode: "lines", x: line.map((row) => latency(row, state.percent)), y: line.map((row) => row.throughput_img_per_s), name: "front",
    line: { shape: "hv", color: colour("ink"), width: 1.1 }, opacity: 0.55, hoverinfo: "skip" });
  const { best } = decide(state.percent, state.bound);
  if (best && latency(best, state.percent) !== null) added.push({ type: "scatter", mode: "markers", x: [latency(best, state.percent)], y: [best.throughput_img_per_s], hoverinfo: "skip",
    name: "best", marker: { size: 21, symbol: "circle-open", color: colour("ink"), line: { width: 1.6 } } });
  const low = Math.log10(Math.min(...shown, state.bound ?? Infinity)) - 0.08, high = Math.log10(Math.max(...shown, state.bound ?? 0)) + 0.08;
  const shapes = [], annotations = [];
  if (state.bound !== null) {
    shapes.push({ type: "rect", xref: "x", yref: "paper", x0: state.bound, x1: 10 ** (high + 1), y0: 0, y1: 1, fillcolor: colour("shade"), line: { width: 0 }, layer: "below" });
    shapes.push({ type: "line", xref: "x", yref: "paper", x0: state.bound, x1: state.bound, y0: 0, y1: 1, line: { color: colour("bad"), width: 1.2 } });
    annotations.push({ xref: "x", yref: "paper", x: Math.log10(state.bound), y: 1, text: boundText(), showarrow: false, xanchor: Math.log10(state.bound) - low < (high - low) / 3 ? "left" : "right", xshift: Math.log10(state.bound) - low < (high - low) / 3 ? 5 : -5, yanchor: "top", font: { color: colour("bad"), size: 12 } });
  }
  const missing = ROWS.filter((row) => passes(row) && row.throughput_img_per_s && latency(row, state.percent) === null).length;
  $("tradeoff-note").textContent = missing ? `${plural(missing, "cell")} ${missing === 1 ? "has" : "have"} too few samples for p${state.percent} and ${missing === 1 ? "is" : "are"} not drawn.` : "";
  return [[...added.slice(0, 1), ...traces, ...added.slice(1)], { ...layout, shapes, annotations, xaxis: { ...layout.xaxis, range: [low, high], autorange: false } }];
}

/* Batch x instances. Each place shows the best of what its loads gave. */
const METRICS = [
  { name: "img/s", lead: () => (state.bound === null ? "The most throughput of each, over all loads and protocols." : `The most throughput of each that holds ${limitText()}.`), of: (row) => row.throughput_img_per_s, limited: true, up: true, unit: "img/s" },
  { name: "latency", lead: () => `The lowest p${state.percent} of each, over all loads and protocols.`, of: (row) => latency(row, state.percent), up: false, unit: "ms" },
  { name: "GPU utilisation", lead: () => "The highest GPU utilisation of each.", of: (row) => row.gpu_utilisation_percent, up: true, unit: "%" },
  { name: "J/image", lead: () => "The least energy of the GPU an image.", of: (row) => row.gpu_energy_j_per_img, up: false, unit: "J" },
  { name: "efficiency", lead: () => "What is served, of what the same network reaches at that batch without a server.", of: (row) => row.efficiency && 100 * row.efficiency, up: true, unit: "%" },
].filter((metric, i) => i < 1 || ROWS.some((row) => metric.of(row) !== null && metric.of(row) !== undefined));

function place(rows, metric) {
  const limited = metric.limited && state.bound !== null;
  const valid = rows.filter((row) => row.verdict === "VALID" && metric.of(row) !== null && metric.of(row) !== undefined);
  const fit = limited ? valid.filter((row) => ["yes", "likely"].includes(holds(row, state.percent, state.bound))) : valid;
  const best = fit.sort((a, b) => (metric.up ? metric.of(b) - metric.of(a) : metric.of(a) - metric.of(b)))[0];
  if (best) return { best, likely: limited && holds(best, state.percent, state.bound) === "likely" };
  if (limited && valid.length) return { none: valid.some((row) => holds(row, state.percent, state.bound) === "unknown") ? "too few samples" : "over the limit" };
  const verdicts = new Set(rows.map((row) => row.verdict));
  return { none: verdicts.has("FAILED") ? "failed" : verdicts.has("INVALID") ? "INVALID" : verdicts.has("VALID") ? "n/a" : rows.length ? "not run" : "not asked", failed: verdicts.has("FAILED") };
}

function drawHeat() {
  const metric = METRICS[state.heat] ?? METRICS[0];
  const rows = ROWS.filter(isMain), batches = [...new Set(rows.map((row) => row.batch))].sort((a, b) => a - b);
  const instances = [...new Set(rows.map((row) => row.instances))].sort((a, b) => (a ?? 0) - (b ?? 0));
  const places = instances.map((i) => batches.map((b) => place(rows.filter((row) => row.batch === b && row.instances === i), metric)));
  const values = places.flat().flatMap((p) => (p.best ? [metric.of(p.best)] : []));
  const low = Math.min(...values), high = Math.max(...values);
  const shade = (value) => (high > low ? (metric.up ? value - low : high - value) / (high - low) : 1);
  $("heat-lead").textContent = metric.lead();
  const cellOf = (p) => (p.best ? filled(p, metric, shade(metric.of(p.best))) : h("div", { class: `none${p.failed ? " failed" : ""}` }, p.none));
  $("heat-map").replaceChildren(h("table", { class: "heat" },
    h("thead", {}, h("tr", {}, h("th", {}, ""), batches.map((b) => h("th", { scope: "col" }, `batch ${b}`)))),
    h("tbody", {}, instances.map((i, r) => h("tr", {}, h("th", { scope: "row" }, i === null ? "as served" : narrow() ? `${i} inst` : plural(i, "instance")), places[r].map((p) => h("td", {}, cellOf(p))))))));
  const buttons = METRICS.map((m, i) => h("button", { type: "button", "aria-pressed": String(i === state.heat), onclick: () => { state.heat = i; drawHeat(); } }, m.name));
  $("heat-switch").replaceChildren(...(buttons.length > 1 ? buttons : []));
}
function filled(p, metric, amount) {
  const style = `background: color-mix(in oklab, var(--heat-1) ${Math.round(100 * amount)}%, var(--heat-0)); color: ${amount > 0.52 ? "var(--heat-ink)" : "var(--ink)"}`;
  const small = narrow() ? level(p.best) : `${p.best.protocol}, ${level(p.best)}${p.likely ? ", not proved" : ""}`;
  return h("button", { type: "button", style, title: label(p.best), onclick: () => openCell(p.best.index) }, sig(metric.of(p.best)), narrow() ? "" : h("small", {}, metric.unit), h("small", {}, small));
}

/* The slider: logarithmic, from below the fastest cell to beyond the slowest. */
function setLimit() {
  const values = ROWS.filter(isMain).map((row) => latency(row, state.percent)).filter((v) => v !== null);
  $("limit").hidden = !values.length;
  if (!values.length) return;
  LIMIT.low = Math.log10(Math.min(...values, state.bound ?? Infinity) * 0.8); LIMIT.high = Math.log10(Math.max(...values, state.bound ?? 0) * 1.25);
}
function drawLimit() {
  $("bound").value = state.bound === null ? 1000 : Math.round((1000 * (Math.log10(state.bound) - LIMIT.low)) / (LIMIT.high - LIMIT.low));
  $("bound-text").textContent = state.bound === null ? "no limit" : boundText();
  $("no-limit").setAttribute("aria-pressed", String(state.bound === null));
}
function answer() {
  drawCard(); drawLimit(); drawHeat();
  const holder = document.querySelector('[data-figure="tradeoff"]');
  if (FIGURES.tradeoff) drawFigure(holder);
}
$("percent").replaceChildren(...DATA.percents.map((p) => h("option", { value: p, disabled: !ROWS.some((row) => latency(row, p) !== null) }, `p${p}`)));
$("percent").value = String(state.percent);
$("percent").addEventListener("change", (event) => { state.percent = Number(event.target.value); setLimit(); answer(); });
$("bound").addEventListener("input", (event) => { state.bound = Number((10 ** (LIMIT.low + (Number(event.target.value) / 1000) * (LIMIT.high - LIMIT.low))).toPrecision(3)); answer(); });
$("no-limit").addEventListener("click", () => { state.bound = null; answer(); });
