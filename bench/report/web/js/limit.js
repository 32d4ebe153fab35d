/* The slider of the limit. It is logarithmic, from below the fastest cell to beyond the slowest. */
import { byId, h } from "./dom.js";
import { isMain } from "./filters.js";
import { latency } from "./labels.js";
import { boundText } from "./recommendation.js";
import { DATA, limit, ROWS, refreshLimit } from "./state.js";

const STEPS = 1000;

/* Both ends, as logarithms; null where no cell has the percentile. */
function ends() {
  const values = ROWS.filter(isMain).map((row) => latency(row, limit.percent));
  const known = values.filter((v) => v !== null);
  if (!known.length) return null;
  const low = Math.min(...known, limit.bound ?? Infinity);
  const high = Math.max(...known, limit.bound ?? 0);
  return { low: Math.log10(low * 0.8), high: Math.log10(high * 1.25) };
}
/* They stay where they are while the slider moves. */
let scale = ends();

export function rescaleLimit() {
  scale = ends();
  byId("limit").hidden = !scale;
}

export function drawLimit() {
  const { bound } = limit;
  if (scale) {
    const share = bound === null ? 1 : (Math.log10(bound) - scale.low) / (scale.high - scale.low);
    byId("bound").value = Math.round(STEPS * share);
  }
  byId("bound-text").textContent = bound === null ? "no limit" : boundText();
  byId("no-limit").setAttribute("aria-pressed", String(bound === null));
}

export function startLimit() {
  const options = DATA.percents.map((percent) => {
    const disabled = !ROWS.some((row) => latency(row, percent) !== null);
    return h("option", { value: percent, disabled }, `p${percent}`);
  });
  byId("percent").replaceChildren(...options);
  byId("percent").value = String(limit.percent);
  byId("percent").addEventListener("change", (event) => {
    limit.percent = Number(event.target.value);
    rescaleLimit();
    refreshLimit();
  });
  byId("bound").addEventListener("input", (event) => {
    const share = Number(event.target.value) / STEPS;
    limit.bound = Number((10 ** (scale.low + share * (scale.high - scale.low))).toPrecision(3));
    refreshLimit();
  });
  byId("no-limit").addEventListener("click", () => {
    limit.bound = null;
    refreshLimit();
  });
}
