/* The table of all cells, sorted by a click on a heading. */
import { byId, h } from "./dom.js";
import { passes } from "./filters.js";
import { count, range, sig } from "./format.js";
import { atLeast, label, latency, link, needs, openCell } from "./labels.js";
import { ROWS } from "./state.js";

/* A column: its name, what it sorts by, and how it is shown. Columns of figures are empty in cells that
   were not measured. */
const number = (name, of, show = (row) => sig(of(row))) => ({ name, of, show, isFigure: true });
const text = (name, of, show = of) => ({ name, of, show, isText: true });
const percentile = (percent) =>
  number(
    `p${percent} ms`,
    (row) => latency(row, percent),
    (row) => percentileText(row, percent),
  );
const MOST_LETTERS = 60;

const GOODPUT = number("goodput", (row) => row.goodput_img_per_s);
const COLUMNS = [
  text("cell", label, (row) => link(row)),
  number("img/s", (row) => row.throughput_img_per_s, throughput),
  number("req/s", (row) => row.throughput_req_per_s),
  ...(ROWS.some((row) => GOODPUT.of(row) !== null) ? [GOODPUT] : []),
  percentile(50),
  percentile(90),
  percentile(99),
  number(
    "n",
    (row) => row.latency_n,
    (row) => count(row.latency_n),
  ),
  number(
    "errors",
    (row) => row.errors,
    (row) => count(row.errors),
  ),
  number("queue ms", (row) => row.server_queue_ms),
  number("infer ms", (row) => row.server_compute_infer_ms),
  number("executed batch", (row) => row.executed_batch_mean),
  text("verdict", (row) => row.verdict, verdict),
  text("findings", (row) => row.findings || row.reason, findings),
];

function throughput(row) {
  const interval = range(row.throughput_img_per_s_low, row.throughput_img_per_s_high);
  return [sig(row.throughput_img_per_s), h("span", { class: "ci" }, ` ${interval}`)];
}
function percentileText(row, percent) {
  const value = latency(row, percent);
  if (value !== null) return `${atLeast(row, percent)}${sig(value)}`;
  return row.latency_n ? h("span", { class: "na", title: needs(row, percent) }, "n/a") : "";
}
function verdict(row) {
  return h("span", { class: `tag ${row.verdict.split(" ")[0]}` }, row.verdict);
}
function findings(row) {
  const said = row.findings ? row.findings.split(" ").join(", ") : row.reason || "";
  return said.slice(0, MOST_LETTERS);
}

const sorting = { column: null, isDown: false };
function sortBy(column) {
  sorting.isDown = sorting.column === column ? !sorting.isDown : !column.isText;
  sorting.column = column;
  drawTable();
}
/* What is not known comes last, whichever way it is sorted. */
function compare(a, b) {
  const [x, y] = [sorting.column.of(a), sorting.column.of(b)];
  if (x === null || y === null) return (x === null) - (y === null);
  const order = typeof x === "string" ? x.localeCompare(y, "en", { numeric: true }) : x - y;
  return sorting.isDown ? -order : order;
}

function heading(column) {
  const isSorted = sorting.column === column;
  const [word, arrow] = sorting.isDown ? ["descending", " ↓"] : ["ascending", " ↑"];
  return h(
    "th",
    { class: column.isText && "left", scope: "col", "aria-sort": isSorted && word },
    h(
      "button",
      { type: "button", onclick: () => sortBy(column) },
      column.name,
      isSorted ? arrow : "",
    ),
  );
}

function line(row) {
  const isMeasured = Boolean(row.throughput_img_per_s);
  const cells = COLUMNS.map((column) =>
    h(
      "td",
      { class: column.isText && `left ${column.name}` },
      column.isFigure && !isMeasured ? "" : column.show(row),
    ),
  );
  return h("tr", { class: !isMeasured && "off", onclick: () => openCell(row.index) }, cells);
}

export function drawTable() {
  const rows = ROWS.filter(passes);
  if (sorting.column) rows.sort(compare);
  const head = h("thead", {}, h("tr", {}, COLUMNS.map(heading)));
  byId("table").replaceChildren(head, h("tbody", {}, rows.map(line)));
}
