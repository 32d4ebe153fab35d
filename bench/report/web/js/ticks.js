/* Ticks of logarithmic axes: as many as there is room for. */
import { narrow } from "./dom.js";
import { sig } from "./format.js";

const CLOSE = [1, 1.5, 2, 3, 4, 5, 7];
const USUAL = [1, 2, 5];
const DECADES = [1];

/* Where each tick of a decade stands, for an axis that spans so many decades. */
function stepsOf(span) {
  if (span < (narrow() ? 0.45 : 1)) return CLOSE;
  return span < 2 || !narrow() ? USUAL : DECADES;
}

export function logTicks(values) {
  const known = values.filter((v) => v > 0);
  const steps = stepsOf(Math.log10(Math.max(...known) / Math.min(...known)));
  const ticks = [];
  for (let e = -4; e < 8; e++) for (const m of steps) ticks.push(m * 10 ** e);
  return { tickvals: ticks, ticktext: ticks.map((v) => sig(v)), tickangle: 0 };
}

/* Ratios around 1, the round ones first. */
const RATIOS = [1, 0.5, 2, 0.8, 1.25, 0.9, 1.1, 0.95, 1.05, 0.98, 1.02, 0.67, 1.5, 0.25, 4];
const LEAST_GAP = 38; // pixels between two ticks

export function ratioTicks(values) {
  const low = Math.log(Math.min(1, ...values));
  const high = Math.log(Math.max(1, ...values));
  const room = narrow() ? 150 : 800;
  const at = (v) => (room * (Math.log(v) - low)) / Math.max(high - low, 0.02);
  const ticks = [];
  for (const v of RATIOS) {
    const isInside = at(v) > -20 && at(v) < room + 20;
    if (isInside && ticks.every((other) => Math.abs(at(v) - at(other)) > LEAST_GAP)) ticks.push(v);
  }
  return { tickvals: ticks, ticktext: ticks.map(String), tickangle: 0 };
}
