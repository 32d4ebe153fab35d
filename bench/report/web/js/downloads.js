/* The numbers behind the page, as files. */
import { byId, h } from "./dom.js";
import { DATA, ROWS } from "./state.js";

function download(name, type, text) {
  const url = URL.createObjectURL(new Blob([text], { type }));
  h("a", { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 1000);
}

function rowsAsJson() {
  const rows = ROWS.map((row) => Object.fromEntries(DATA.columns.map((name) => [name, row[name]])));
  return JSON.stringify(rows, null, 1);
}

export function startDownloads() {
  const onClick = (id, save) => byId(id).addEventListener("click", save);
  onClick("download-csv", () => download("cells.csv", "text/csv", DATA.csv));
  onClick("download-json", () => download("cells.json", "application/json", rowsAsJson()));
}
