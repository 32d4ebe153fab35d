/* Filters: what was measured with more than one value, beyond what the charts themselves show. */
import { h } from "./dom.js";
import { runName } from "./labels.js";
import { ENGINE, NEWEST, ROWS, refresh } from "./state.js";

function facetsOf(row) {
  return {
    run: runName(row) ?? "",
    model: row.model,
    protocol: row.protocol,
    engine: row.engine,
    load: row.rate_per_s === null ? "closed loop" : "open loop",
    "shared memory": row.shared_memory,
    ...row.parameters,
  };
}

const FACETS_OF_ROWS = ROWS.map(facetsOf);
const FACETS = new Map();
for (const facets of FACETS_OF_ROWS) {
  for (const [name, value] of Object.entries(facets)) {
    FACETS.set(name, (FACETS.get(name) ?? new Set()).add(value));
  }
}

const chosen = new Map();
export const passes = (row) =>
  [...chosen].every(([name, value]) => FACETS_OF_ROWS[row.index][name] === value);
/* Rows that the answer is chosen from. */
export const isMain = (row) =>
  row.run === NEWEST && row.engine === (chosen.get("engine") ?? ENGINE) && passes(row);

const ALL = "*";
function choose(name, values, position) {
  if (position === ALL) chosen.delete(name);
  else chosen.set(name, values[position]);
  refresh();
}

export function filterSelects() {
  const varied = [...FACETS].filter(([, values]) => values.size > 1);
  return varied.map(([name, set]) => {
    const values = [...set];
    const options = values.map((value, i) => h("option", { value: i }, value));
    const onchange = (event) => choose(name, values, event.target.value);
    const all = h("option", { value: ALL }, "all");
    return h(
      "label",
      { class: "pick" },
      name,
      h("select", { "data-facet": name, onchange }, all, options),
    );
  });
}
