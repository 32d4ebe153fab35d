/* Which configuration to run under a limit on latency. analysis/recommendation.py says the same in Python,
   and a test holds the two together. */
import { isMain } from "./filters.js";
import { ms } from "./format.js";
import { latency } from "./labels.js";
import { DATA, limit, ROWS } from "./state.js";

const ALLOWED_ERRORS = DATA.limit?.error_fraction ?? 0;
/* The slider moves one percentile. The other terms of the SLO stay in force. */
const otherTerms = (percent) => (DATA.limit?.others ?? []).filter(([p]) => p !== percent);

export const boundText = (percent = limit.percent, bound = limit.bound) =>
  `p${percent} ≤ ${ms(bound)}`;
export const limitText = () =>
  [
    boundText(),
    ...otherTerms(limit.percent).map(([percent, bound]) => boundText(percent, bound)),
  ].join(" and ");

/* yes: proved by the samples; likely: the figure is within, the samples do not prove it; no; unknown. */
export function holds(row, percent = limit.percent, bound = limit.bound) {
  if (bound === null) return "yes";
  if (row.errors / Math.max(1, row.asked) > ALLOWED_ERRORS) return "no";
  const terms = [[percent, bound], ...otherTerms(percent)];
  const answers = terms.map(([p, most]) => within(row, DATA.percents.indexOf(p), most));
  return ["no", "unknown", "likely", "yes"].find((kind) => answers.includes(kind));
}
function within(row, i, bound) {
  if (row.latencies_ms[i] === null) return "unknown";
  if (row.latencies_ms[i] > bound) return "no";
  return row.proved_ms[i] !== null && row.proved_ms[i] <= bound ? "yes" : "likely";
}

export const faster = (a, b) => b.throughput_img_per_s - a.throughput_img_per_s;
/* One that is valid, but fails more requests than --max-errors allows, is not recommended. */
export const failsTooOften = (row) => row.findings.split(" ").includes("too-many-errors");
const isCandidate = (row) =>
  isMain(row) && row.verdict === "VALID" && row.throughput_img_per_s && !failsTooOften(row);
const configuration = (row) =>
  JSON.stringify([
    row.model,
    row.replicas,
    row.instances,
    row.via,
    row.batch,
    row.protocol,
    row.shared_memory,
    row.parameters,
    row.max_batch,
    row.max_queue_delay_us,
  ]);

/* The cell to compare the best one with: the smallest batch on the fewest instances, at its best load. */
function smallestOf(valid) {
  const bySize = (a, b) => a.batch - b.batch || (a.instances ?? 0) - (b.instances ?? 0);
  const smallest = [...valid].sort(bySize)[0];
  if (!smallest) return undefined;
  const same = valid.filter(
    (row) => row.batch === smallest.batch && row.instances === smallest.instances,
  );
  return same.sort(faster)[0];
}

export function recommend() {
  const valid = ROWS.filter(isCandidate);
  const by = { yes: [], likely: [], no: [], unknown: [] };
  for (const row of valid) by[holds(row)].push(row);
  const fits = (by.yes.length ? by.yes : by.likely).sort(faster);
  const best = fits[0] ?? null;
  const next = fits.find((row) => configuration(row) !== configuration(best)) ?? null;
  const isProved = by.yes.length > 0;
  return { valid, by, best, next, first: smallestOf(valid), isProved, candidates: fits.length };
}

/* What to say of the throughput of a cell that was picked for it: its fresh trials alone, or its own trials
   corrected for having been picked by them. */
export function stated(best) {
  const { confirmed, if_best: corrected } = best;
  if (confirmed?.verdict === "VALID" && confirmed.low !== null) {
    return { ...confirmed, basis: "confirmed" };
  }
  if (corrected?.rivals > 1) return { ...corrected, basis: "corrected" };
  return {
    value: best.throughput_img_per_s,
    low: best.throughput_img_per_s_low,
    high: best.throughput_img_per_s_high,
    basis: "measured",
  };
}

/* The Pareto front: cells that no other cell beats in both throughput and latency. */
export function paretoFront() {
  const byLatency = (a, b) => latency(a, limit.percent) - latency(b, limit.percent) || faster(a, b);
  const points = ROWS.filter(
    (row) => isCandidate(row) && latency(row, limit.percent) !== null,
  ).sort(byLatency);
  const front = [];
  for (const row of points) {
    if (row.throughput_img_per_s > (front.at(-1)?.throughput_img_per_s ?? 0)) front.push(row);
  }
  return front;
}
