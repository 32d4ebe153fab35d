/* The answer: which configuration to run, how sure that is, and what is next best. */
import { byId, h } from "./dom.js";
import { count, ms, plural, range, sig } from "./format.js";
import {
  configurationText,
  lacksProof,
  latency,
  level,
  link,
  samplesNeeded,
  throughputInterval,
} from "./labels.js";
import { failsTooOften, faster, limitText, recommend, stated } from "./recommendation.js";
import { DATA, limit, NEWEST, ROWS } from "./state.js";

const bullets = (items) =>
  h(
    "ul",
    {},
    items.map(([kind, content]) => h("li", { class: kind }, content)),
  );
const overLoad = (row) => `over ${row.protocol} at ${level(row)}`;

export function drawCard() {
  const answer = recommend();
  const page = document.documentElement.dataset;
  page.bound = limit.bound ?? "";
  page.best = answer.best?.cell ?? "";
  byId("card").replaceChildren(...(answer.best ? recommended(answer) : nothingFits(answer)));
}

const mlperf = () => (DATA.headline ? [["", [DATA.headline]]] : []);

const failingCells = () =>
  ROWS.filter((row) => row.run === NEWEST && row.verdict === "VALID" && failsTooOften(row));
function failureNotes() {
  const failing = failingCells();
  if (!failing.length) return [];
  const seen = failing[0].remarks.find(({ code }) => code === "too-many-errors").seen;
  const who = `${plural(failing.length, "cell")} not recommended, as too many requests failed. `;
  return [["bad", [who, link(failing[0]), `: ${seen}`]]];
}

function recommended(answer) {
  const { best, isProved } = answer;
  const said = stated(best);
  const bounds = range(said.low, said.high);
  const purpose = limit.bound === null ? "For the most throughput run " : `For ${limitText()} run `;
  const headline = h(
    "p",
    { class: "headline" },
    purpose,
    h("b", {}, configurationText(best)),
    ` ${overLoad(best)}: `,
    h("span", { class: "value" }, `${sig(said.value)} img/s`),
    h("span", { class: "range" }, bounds && ` (${bounds})`),
  );
  const items = [...mlperf(), ...failureNotes(), ...basis(answer, said)];
  if (!isProved) {
    items.push([
      "warn",
      [
        `Likely: the samples do not prove ${limitText()} at 99 % confidence. `,
        lacksProof(best, limit.percent),
      ],
    ]);
  }
  const spread = said.high / said.low;
  if (spread > DATA.wide) {
    const advice = "measure longer, with more repeats, or on a quieter machine.";
    items.push(["warn", [`Its interval spans a factor of ${sig(spread, 2)}: ${advice}`]]);
  }
  items.push(...comparedWithSmallest(answer), ...comparedWithNext(answer), ...limitCounts(answer));
  return [headline, ...(limit.bound === null ? [extremes(answer)] : []), bullets(items)];
}

/* What the stated throughput rests on, and what the trials said that the cell was picked by. */
function basis({ best, candidates }, said) {
  const { confirmed } = best;
  const own = `${sig(best.throughput_img_per_s)} img/s${throughputInterval(best)}`;
  const items = [];
  if (confirmed && said.basis !== "confirmed") {
    const why =
      confirmed.verdict === "VALID" ? "too few" : `${confirmed.verdict}, ${confirmed.findings}`;
    const trials = plural(confirmed.repeats, "fresh trial");
    items.push(["warn", [`Not confirmed by its ${trials}: ${why}.`]]);
  }
  if (said.basis === "confirmed") {
    const trials = plural(confirmed.repeats, "fresh trial");
    const text = `Confirmed: measured in ${trials} after it was picked; it was picked with ${own}.`;
    items.push(["good", [text]]);
  }
  if (confirmed?.slo_met === false) {
    const text =
      "Its fresh trials miss the SLO that was asked: choose less load, or measure longer.";
    items.push(["warn", [text]]);
  }
  if (said.basis === "corrected") {
    items.push(["", [`Corrected for having been the best of ${candidates}; measured: ${own}.`]]);
  }
  return items;
}

function comparedWithSmallest({ best, first }) {
  if (!first || (first.batch === best.batch && first.instances === best.instances)) return [];
  const times = stated(best).value / first.throughput_img_per_s;
  const than = [
    link(first, configurationText(first)),
    ` (${sig(first.throughput_img_per_s)} img/s).`,
  ];
  return [[times > 1 ? "good" : "", [`${sig(times, 2)}× the throughput of `, ...than]]];
}

function comparedWithNext({ best, next }) {
  const { low } = stated(best);
  if (!next) {
    return low === null
      ? [["warn", ["Fewer than 3 repeats: no interval, the figures are indicative."]]]
      : [];
  }
  const high = next.throughput_img_per_s_high;
  const isKnown = low !== null && high !== null;
  const isApart = isKnown && low > high;
  let order = "Their intervals overlap: choose either.";
  if (isApart) order = "Their intervals do not overlap.";
  if (!isKnown) order = "With fewer than 3 repeats the ranking has no confidence interval.";
  const figure = `${sig(next.throughput_img_per_s)} img/s${throughputInterval(next)}`;
  const what = link(next, `${configurationText(next)} ${overLoad(next)}`);
  return [[isApart ? "good" : "warn", ["Next best: ", what, `, ${figure}. ${order}`]]];
}

const verb = (rows, one, many) => (rows.length === 1 ? one : many);
function limitCounts({ valid, by }) {
  if (limit.bound === null) return [];
  const { yes, likely, no, unknown } = by;
  const parts = [
    `${plural(yes.length, "cell")} of ${valid.length} ${verb(yes, "holds", "hold")} the limit`,
  ];
  if (likely.length) parts.push(`${likely.length} probably ${verb(likely, "does", "do")}`);
  if (no.length) parts.push(`${no.length} ${verb(no, "misses", "miss")} it`);
  if (unknown.length) {
    parts.push(`${unknown.length} ${verb(unknown, "has", "have")} too few samples to tell`);
  }
  return [["", [`${parts.join(", ")}.`]]];
}

function nothingFits(answer) {
  const { valid, by } = answer;
  let why = `No measured configuration holds ${limitText()}.`;
  if (by.unknown.length) why = `Too few samples to tell what holds ${limitText()}.`;
  if (!valid.length) why = "Nothing valid was measured.";
  const failing = failingCells();
  if (!valid.length && failing.length) {
    why = "No cell is recommended: too many requests failed in each that is valid.";
  }
  const items = [...mlperf(), ...failureNotes()];
  if (by.unknown.length) {
    const most = Math.max(...by.unknown.map((row) => row.latency_n));
    const has = `p${limit.percent} needs ${count(samplesNeeded(limit.percent))} requests; the most any of these cells has is ${count(most)}.`;
    items.push(["warn", [`${has} Measure longer, or set the limit on a lower percentile.`]]);
  }
  if (!valid.length) items.push(...causes());
  const nearest = lowest(valid, limit.percent);
  if (nearest) {
    const text = ` with p${limit.percent} of ${ms(latency(nearest, limit.percent))}.`;
    items.push(["", ["Nearest: ", link(nearest), text]]);
  }
  return [h("p", { class: "headline" }, why), bullets([...items, ...limitCounts(answer)])];
}

const lowest = (rows, percent) =>
  rows
    .filter((row) => latency(row, percent) !== null)
    .sort((a, b) => latency(a, percent) - latency(b, percent))[0];

/* What made every cell invalid, and what to do. */
function causes() {
  const newest = ROWS.filter((row) => row.run === NEWEST);
  const failed = newest.find((row) => row.verdict === "FAILED");
  const invalid = newest
    .flatMap((row) => row.remarks)
    .filter((finding) => finding.severity === "INVALID");
  const byCode = new Map(invalid.map((finding) => [finding.code, finding]));
  return [
    ...(failed ? [["bad", [link(failed), ` failed: ${failed.reason}`]]] : []),
    ...[...byCode.values()].map(({ code, seen, cause, next_step: next }) => [
      "bad",
      [h("b", {}, code), `: ${seen} ${cause} ${next}`],
    ]),
  ];
}

/* Without a limit: the most throughput, the lowest latency, and the knee between them. */
function extremes({ valid, best }) {
  const box = (name, number, unit, row) =>
    h(
      "div",
      {},
      h("div", { class: "name" }, name),
      h("div", { class: "number" }, number, h("small", {}, ` ${unit}`)),
      h("div", { class: "of" }, link(row)),
    );
  const boxes = [box("Most throughput", sig(stated(best).value), "img/s", best)];
  const low = lowest(valid, 50);
  if (low) boxes.push(box("Lowest median latency", sig(latency(low, 50)), "ms", low));
  const knee = kneeOf(valid, best);
  if (knee) {
    const name = `Knee: ${100 * DATA.knee} % of peak throughput at the lowest latency`;
    const unit = `img/s at ${ms(knee.latency_mean_ms)} mean`;
    boxes.push(box(name, sig(knee.throughput_img_per_s), unit, knee));
  }
  return h("div", { class: "figures" }, boxes);
}

function kneeOf(valid, best) {
  const least = DATA.knee * best.throughput_img_per_s;
  return valid
    .filter((row) => row.latency_mean_ms && row.throughput_img_per_s >= least)
    .sort((a, b) => a.latency_mean_ms - b.latency_mean_ms || faster(a, b))[0];
}
