/* A cell in words: short in tables and charts, longer in sentences, and in full where it is pointed at. */
import { escaped, h, narrow } from "./dom.js";
import { count, ms, plural, range, sig } from "./format.js";
import { DATA, ENGINE, ROWS } from "./state.js";

const varies = (name) => new Set(ROWS.map((row) => row[name])).size > 1;
const VARIES = {
  model: varies("model"),
  maxBatch: varies("max_batch"),
  queueDelay: varies("max_queue_delay_us"),
};

const unlessNull = (value, text) => (value === null ? null : text(value));
const joined = (parts, by) => parts.filter(Boolean).join(by);

export const level = (row) =>
  row.rate_per_s !== null ? `${sig(row.rate_per_s)}/s` : plural(row.concurrency, "user");
export const runName = (row) => (DATA.runs.length > 1 ? DATA.runs[row.run].name : null);

function queueDelay(us) {
  return us < 0 ? "no dynamic batching" : `queue delay ${ms(us / 1000)}`;
}

function settings(row) {
  return [
    ...Object.entries(row.parameters).map(([name, value]) => `${name} ${value}`),
    VARIES.maxBatch ? unlessNull(row.max_batch, (size) => `max batch ${size}`) : null,
    VARIES.queueDelay ? unlessNull(row.max_queue_delay_us, queueDelay) : null,
  ];
}

/* b8 · 2 inst · http · 4 users */
export function label(row) {
  const parts = [
    VARIES.model ? row.model : null,
    `b${row.batch}`,
    unlessNull(row.replicas, (n) => plural(n, "pod")),
    unlessNull(row.instances, (n) => `${n} inst`),
    row.protocol,
    level(row),
    ...settings(row),
    unlessNull(row.via, (via) => `via ${via}`),
    row.shared_memory === "none" ? null : `${row.shared_memory} shm`,
    row.engine === ENGINE ? null : row.engine,
    runName(row),
  ];
  return joined(parts, " · ");
}

/* 2 instances, batch 8: what to configure, without the load. */
export function configurationText(row) {
  const parts = [
    VARIES.model ? row.model : null,
    unlessNull(row.replicas, (n) => plural(n, "replica")),
    unlessNull(row.instances, (n) => plural(n, "instance")),
    `batch ${row.batch}`,
    ...settings(row),
  ];
  return joined(parts, ", ");
}

/* On the left of a chart, where what is drawn needs room, too. */
export function chartLabel(row) {
  const most = narrow() ? 34 : 64;
  let text = label(row);
  if (narrow()) text = text.replace("perf_analyzer", "pa");
  if (narrow() && text.length > most) text = text.replace(/ inst\b/, "i").replace(/ users?\b/, "u");
  return text.length > most ? `${text.slice(0, most - 1)}…` : text;
}

export const link = (row, text) =>
  h("a", { class: "link", href: `#cell-${row.index}` }, text ?? label(row));
/* The address names the cell that is open, so that a link to it opens it. */
export const openCell = (index) => {
  location.hash = `cell-${index}`;
};

export const latency = (row, percent) => row.latencies_ms[DATA.percents.indexOf(percent)] ?? null;
/* Before a percentile of requests that were not waited for to their end. */
export const atLeast = (row, percent) =>
  row.latencies_at_least[DATA.percents.indexOf(percent)] ? "≥ " : "";
/* What a cell whose bound is likely, but not proved, does prove, or what a proof would take. */
export function lacksProof(row, percent) {
  const at = DATA.percents.indexOf(percent);
  if (row.proof_s[at] !== null) {
    const repeats = Math.max(row.repeats, DATA.least_repeats);
    return `A proof needs about ${repeats} repeats of ${sig(row.proof_s[at], 2)} s.`;
  }
  const proved = row.proved_ms[at];
  return proved === null ? "" : `The samples prove p${percent} ≤ ${ms(proved)}.`;
}
export const samplesNeeded = (percent) => DATA.needed[DATA.percents.indexOf(percent)];
export const needs = (row, percent) =>
  `n/a (needs ${count(samplesNeeded(percent))}, has ${count(row.latency_n)})`;

export function throughputInterval(row) {
  const text = range(row.throughput_img_per_s_low, row.throughput_img_per_s_high);
  return text && ` (${text})`;
}

export function latencyText(row, percent) {
  const value = latency(row, percent);
  if (value === null) return needs(row, percent);
  const name = `latency_p${percent}_ms`;
  const [low, high] = [row[`${name}_low`] ?? null, row[`${name}_high`] ?? null];
  /* A lower bound without an upper one: the samples do not bound the percentile from above. */
  const bounds = low !== null && high === null ? `> ${sig(low)} ms` : range(low, high);
  return `${atLeast(row, percent)}${sig(value)} ms${bounds && ` (${bounds})`}`;
}

/* The text at a point, with Plotly's markup. */
export function hover(row) {
  const verdict = row.verdict === "VALID" ? "" : ` ${row.verdict}`;
  const errors = row.errors ? ` · ${plural(row.errors, "error")}` : "";
  const lines = [
    `<b>${escaped(label(row))}</b>${verdict}`,
    `${sig(row.throughput_img_per_s)} img/s${throughputInterval(row)} · ${sig(row.throughput_req_per_s)} req/s`,
    ...[50, 99].map((percent) => `p${percent} ${latencyText(row, percent)}`),
    `n ${count(row.latency_n)} in ${plural(row.repeats, "repeat")}${errors}`,
  ];
  if (row.findings) lines.push(escaped(row.findings.split(" ").join(", ")));
  return lines.join("<br>");
}

/* The text at a part of a bar. */
export function partHover(row, name, value) {
  const part = `${escaped(name)}: ${sig(value)}`;
  const rates = `${sig(row.throughput_img_per_s)} img/s · ${sig(row.throughput_req_per_s)} req/s`;
  return `<b>${escaped(label(row))}</b><br>${part}<br>n ${count(row.latency_n)} · ${rates}`;
}
