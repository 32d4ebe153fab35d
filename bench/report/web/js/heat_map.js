/* Batch against instances: each field shows the best of all loads of that configuration. */
import { byId, h, narrow, switchButtons } from "./dom.js";
import { isMain } from "./filters.js";
import { plural, sig } from "./format.js";
import { label, latency, level, openCell } from "./labels.js";
import { holds, limitText } from "./recommendation.js";
import { limit, ROWS } from "./state.js";

const throughputLead = () =>
  limit.bound === null
    ? "The most throughput of each, over all loads and protocols."
    : `The most throughput of each that holds ${limitText()}.`;
const METRICS = [
  {
    name: "img/s",
    unit: "img/s",
    lead: throughputLead,
    of: (row) => row.throughput_img_per_s,
    isMoreBetter: true,
    isLimited: true,
  },
  {
    name: "latency",
    unit: "ms",
    lead: () => `The lowest p${limit.percent} of each, over all loads and protocols.`,
    of: (row) => latency(row, limit.percent),
  },
  {
    name: "GPU utilisation",
    unit: "%",
    lead: () => "The highest GPU utilisation of each.",
    of: (row) => row.gpu_utilisation_percent,
    isMoreBetter: true,
  },
  {
    name: "J/image",
    unit: "J",
    lead: () => "The least GPU energy per image of each.",
    of: (row) => row.gpu_energy_j_per_img,
  },
  {
    name: "efficiency",
    unit: "%",
    lead: () =>
      "Throughput as a share of what the same network reaches at that batch without a server.",
    of: (row) => row.efficiency && 100 * row.efficiency,
    isMoreBetter: true,
  },
];
const isKnown = (value) => value !== null && value !== undefined;
const OFFERED = METRICS.filter(
  (metric, i) => i === 0 || ROWS.some((row) => isKnown(metric.of(row))),
);
let shown = OFFERED[0];

/* Of the rows of one field: the best one, or why there is none. */
function fieldOf(rows, metric) {
  const isLimited = metric.isLimited && limit.bound !== null;
  const valid = rows.filter((row) => row.verdict === "VALID" && isKnown(metric.of(row)));
  const fits = isLimited ? valid.filter((row) => ["yes", "likely"].includes(holds(row))) : valid;
  const sign = metric.isMoreBetter ? 1 : -1;
  const best = fits.sort((a, b) => sign * (metric.of(b) - metric.of(a)))[0];
  if (best) return { best, isLikely: isLimited && holds(best) === "likely" };
  if (isLimited && valid.length) {
    return {
      none: valid.some((row) => holds(row) === "unknown") ? "too few samples" : "over the limit",
    };
  }
  const verdicts = new Set(rows.map((row) => row.verdict));
  if (verdicts.has("FAILED")) return { none: "failed", hasFailed: true };
  if (verdicts.has("INVALID")) return { none: "INVALID" };
  if (verdicts.has("VALID")) return { none: "n/a" };
  return { none: rows.length ? "not run" : "not asked" };
}

function drawField(field, metric, amount) {
  if (!field.best) {
    return h("div", { class: field.hasFailed ? "none failed" : "none" }, field.none);
  }
  const { best, isLikely } = field;
  const hue = `color-mix(in oklab, var(--heat-1) ${Math.round(100 * amount)}%, var(--heat-0))`;
  const ink = amount > 0.52 ? "var(--heat-ink)" : "var(--ink)";
  const load = narrow()
    ? level(best)
    : `${best.protocol}, ${level(best)}${isLikely ? ", not proved" : ""}`;
  return h(
    "button",
    {
      type: "button",
      style: `background: ${hue}; color: ${ink}`,
      title: label(best),
      onclick: () => openCell(best.index),
    },
    sig(metric.of(best)),
    narrow() ? null : h("small", {}, metric.unit),
    h("small", {}, load),
  );
}

function instancesText(n) {
  if (n === null) return "as served";
  return narrow() ? `${n} inst` : plural(n, "instance");
}

export function drawHeatMap() {
  const rows = ROWS.filter(isMain);
  const batches = [...new Set(rows.map((row) => row.batch))].sort((a, b) => a - b);
  const instances = [...new Set(rows.map((row) => row.instances))].sort(
    (a, b) => (a ?? 0) - (b ?? 0),
  );
  const fields = instances.map((n) =>
    batches.map((batch) => {
      const same = rows.filter((row) => row.batch === batch && row.instances === n);
      return fieldOf(same, shown);
    }),
  );
  const values = fields.flat().flatMap((field) => (field.best ? [shown.of(field.best)] : []));
  const [low, high] = [Math.min(...values), Math.max(...values)];
  const amountOf = (value) => {
    if (high <= low) return 1;
    return (shown.isMoreBetter ? value - low : high - value) / (high - low);
  };
  const draw = (field) =>
    h("td", {}, drawField(field, shown, field.best && amountOf(shown.of(field.best))));
  const headings = batches.map((batch) => h("th", { scope: "col" }, `batch ${batch}`));
  const body = instances.map((n, i) =>
    h("tr", {}, h("th", { scope: "row" }, instancesText(n)), fields[i].map(draw)),
  );
  const head = h("thead", {}, h("tr", {}, h("th"), headings));
  byId("heat-lead").textContent = shown.lead();
  byId("heat-map").replaceChildren(h("table", { class: "heat" }, head, h("tbody", {}, body)));
}

export function startHeatMap() {
  if (OFFERED.length < 2) return;
  const choose = (i) => {
    shown = OFFERED[i];
    drawHeatMap();
  };
  byId("heat-switch").replaceChildren(
    ...switchButtons(
      OFFERED.map((metric) => metric.name),
      0,
      choose,
    ),
  );
}
