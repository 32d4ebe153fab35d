/* One cell in full: its figures, findings, course over time, tail, and the command that repeats it. */
import { byId, h, switchButtons } from "./dom.js";
import { count, ms, plural, range, sig } from "./format.js";
import { label, latencyText } from "./labels.js";
import { drawSeries } from "./series.js";
import { DATA, ROWS } from "./state.js";
import { detailsOf, drawTail, hueOf } from "./tail.js";

const unlessNull = (value, text) => (value === null ? null : text(value));
/* Numbers with their units, those that are known. */
function listed(entries, by = ", ") {
  const known = entries.filter(([value]) => value !== null);
  return known.map(([value, unit]) => `${sig(value)} ${unit}`).join(by);
}
const withBounds = (text, low, high) => (range(low, high) ? `${text} (${range(low, high)})` : text);
const megabytes = (bytes) => unlessNull(bytes, (n) => n / 1e6);

function bareText(row) {
  if (row.bare_img_per_s === null) return null;
  const bare = `${sig(row.bare_img_per_s)} img/s; served ${sig(100 * row.efficiency)} % of it`;
  if (row.roofline_img_per_s === null) return bare;
  const share = sig((100 * row.bare_img_per_s) / row.roofline_img_per_s);
  return `${bare}; roofline ${sig(row.roofline_img_per_s)} img/s, ${share} % reached by the bare model`;
}

function figures(row) {
  const throughput = `${sig(row.throughput_img_per_s)} img/s`;
  const gpu = [
    [row.gpu_utilisation_percent, "%"],
    [row.gpu_power_w, "W"],
    [row.gpu_sm_clock_mhz, "MHz"],
    [row.gpu_temperature_c, "°C"],
    [row.gpu_energy_j_per_img, "J/image"],
    [row.gpu_img_per_s_per_w, "img/s/W"],
  ];
  const wire = [
    [megabytes(row.wire_in_bytes_per_s), "MB/s in"],
    [megabytes(row.wire_out_bytes_per_s), "MB/s out"],
  ];
  const requests = `${count(row.requests)} in ${plural(row.repeats, "repeat")}, ${plural(row.errors, "error")}`;
  return [
    ["through", row.way],
    [
      "throughput",
      withBounds(throughput, row.throughput_img_per_s_low, row.throughput_img_per_s_high),
    ],
    ["", `${sig(row.throughput_req_per_s)} req/s`],
    ...DATA.percents.map((percent) => [`p${percent}`, latencyText(row, percent)]),
    ["requests", requests],
    ["send lateness p99", unlessNull(row.lateness_p99_ms, ms)],
    [
      "goodput",
      unlessNull(row.goodput_img_per_s, (n) => `${sig(n)} img/s within ${DATA.runs[row.run].slo}`),
    ],
    ["mean executed batch", sig(row.executed_batch_mean)],
    ["client CPU", unlessNull(row.client_cpu_cores, (n) => `${sig(n, 2)} cores`)],
    ["server CPU", unlessNull(row.server_cpu_cores, (n) => `${sig(n, 2)} cores`)],
    ["GPU", listed(gpu)],
    ["tensors on the wire", listed(wire)],
    ["bare model", bareText(row)],
    ["limited by (inferred)", row.wall_reason],
  ];
}

function pairs(entries) {
  const known = entries.filter(
    ([, value]) => value !== null && value !== undefined && value !== "",
  );
  const parts = known.flatMap(([name, value]) => [h("dt", {}, name), h("dd", {}, value)]);
  return h("dl", { class: "pairs" }, parts);
}

function findings({ findings: all }) {
  if (!all.length) return [h("p", { class: "note" }, "None.")];
  return all.map(({ severity, code, repeats, seen, cause, next_step: next }) =>
    h(
      "div",
      { class: "finding" },
      h("span", { class: `tag ${severity}` }, severity),
      h("b", {}, ` ${code} `),
      h("span", { class: "note" }, `repeat ${repeats.map((r) => r + 1).join(", ")}`),
      h("br"),
      `${seen} ${cause}`,
      h("b", {}, " Next: "),
      next,
    ),
  );
}

function errors({ errors: byMessage }) {
  const lines = Object.entries(byMessage).map(([message, n]) =>
    h("li", {}, `${count(n)} × ${message}`),
  );
  return lines.length ? [h("h3", {}, "Errors"), h("ul", {}, lines)] : [];
}

const BATCH_HEADINGS = ["size", "executions", "mean compute, ms", "ms per image"];
function batches(row) {
  const sizes = Object.entries(row.batches);
  if (!sizes.length) return h("p", { class: "note" }, "The server does not report them.");
  const lines = sizes.map(([size, [n, ns]]) => {
    const each = ns / n / 1e6;
    return [size, count(n), sig(each), sig(each / size)].map((value) => h("td", {}, value));
  });
  const headings = BATCH_HEADINGS.map((name) => h("th", { scope: "col" }, name));
  const head = h("thead", {}, h("tr", {}, headings));
  const body = h(
    "tbody",
    {},
    lines.map((cells) => h("tr", {}, cells)),
  );
  return h("div", { class: "scroll" }, h("table", { class: "narrow" }, head, body));
}

/* Buttons for the repeats whose time series are there, or which repeat it is. */
function repeatSwitch(details, draw) {
  const { series, repeats } = details;
  if (series.length > 1) {
    const labels = series.map((one) => `repeat ${one.repeat + 1}`);
    return h(
      "div",
      { class: "switch", role: "group" },
      switchButtons(labels, 0, (i) => draw(series[i])),
    );
  }
  if (!series.length) return null;
  const which = repeats > 1 ? `, the one of median throughput of ${repeats}` : "";
  return h("p", { class: "note" }, `Repeat ${series[0].repeat + 1}${which}.`);
}

const section = (title, ...content) => [h("h3", {}, title), ...content];

function header(row) {
  const title = h("h2", { id: "cell-h" }, label(row));
  const verdict = h("span", { class: `tag ${row.verdict.split(" ")[0]}` }, row.verdict);
  const close = h("button", { type: "button", onclick: () => byId("cell").close() }, "Close");
  return h(
    "header",
    {},
    h("div", {}, title, verdict, h("span", { class: "note" }, `  ${row.cell}`)),
    close,
  );
}

function measuredParts(row, details, series, tail, draw) {
  const columns = h(
    "div",
    { class: "columns" },
    h("div", {}, section("Figures", pairs(figures(row)))),
    h("div", {}, section("Findings", findings(details)), errors(details)),
  );
  const about =
    "Grey: warm-up and drain, which no figure includes. With fewer than 100 requests in a bin, its p99 is the slowest one.";
  return [
    columns,
    ...section("Over time", h("p", { class: "note" }, about), repeatSwitch(details, draw), series),
    ...section("Tail", tail),
    ...section("Executed batches", batches(row)),
  ];
}

let opener = null;
function showCell(row) {
  const dialog = byId("cell");
  const details = detailsOf(row);
  const series = h("div", { class: "pair" });
  const tail = h("div");
  const style = { hue: hueOf(row), isClosedLoop: row.rate_per_s === null };
  const draw = (one) => drawSeries(series, one, style);
  const command = details?.engine.command;
  const parts = [
    header(row),
    row.reason ? h("p", {}, row.reason) : null,
    ...(details ? measuredParts(row, details, series, tail, draw) : []),
    ...section("Measure it again", h("pre", {}, DATA.commands[row.index])),
    ...(command ? section("The engine’s own command", h("pre", {}, command)) : []),
  ];
  if (!dialog.open) opener = document.activeElement;
  dialog.replaceChildren(...parts.flat().filter(Boolean));
  dialog.dataset.index = row.index;
  if (!dialog.open) dialog.showModal();
  dialog.scrollTop = 0;
  if (!details) return;
  if (details.series.length) draw(details.series[0]);
  drawTail(tail, row);
}

/* The address names the cell that is open. */
export function followAddress() {
  const row = ROWS[location.hash.match(/^#cell-(\d+)$/)?.[1]];
  if (row) showCell(row);
  else if (byId("cell").open) byId("cell").close();
}

export function redrawDialog() {
  if (byId("cell").open) showCell(ROWS[byId("cell").dataset.index]);
}

export function startDialog() {
  const dialog = byId("cell");
  dialog.addEventListener("click", (event) => {
    if (event.target === dialog) dialog.close();
  });
  dialog.addEventListener("close", () => {
    dialog.replaceChildren();
    if (location.hash.startsWith("#cell-")) {
      history.replaceState(null, "", location.pathname + location.search);
    }
    opener?.focus?.({ preventScroll: true });
  });
  window.addEventListener("hashchange", followAddress);
}
