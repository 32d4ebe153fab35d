/* What the page knows, what the reader chose, and which views draw that. */
import { byId } from "./dom.js";

export const DATA = JSON.parse(byId("data").textContent);
export const ROWS = DATA.rows.map((values, index) => {
  const row = { index };
  DATA.columns.forEach((name, i) => {
    row[name] = values[i];
  });
  return row;
});
performance.mark("data");

/* Only the newest run, and the first engine, is judged. */
export const NEWEST = Math.max(0, ...ROWS.map((row) => row.run));
export const ENGINE = [...new Set(ROWS.map((row) => row.engine))].sort()[0];

/* The limit on latency that the reader moves. Without a bound there is no limit. */
export const limit = {
  percent: DATA.limit?.percent ?? DATA.percent,
  bound: DATA.limit?.bound_ms ?? null,
};

/* On paper every chart is as wide as a sheet, in pixels. */
export const paper = { isPrinting: false, width: 680 };

const views = [];
/* Add a function that draws a part of the page. Views are drawn in the order they are added. */
export function addView(draw, { followsLimit = false } = {}) {
  views.push({ draw, followsLimit });
}
/* Draw everything: after a filter, a new theme, another width. */
export function refresh() {
  for (const view of views) view.draw();
}
/* Draw what depends on the limit. */
export function refreshLimit() {
  for (const view of views) if (view.followsLimit) view.draw();
}
