/* Whether to trust the numbers: how many cells are valid, and every finding with the cells that have it. */
import { byId, h } from "./dom.js";
import { count, plural } from "./format.js";
import { link } from "./labels.js";
import { DATA, NEWEST, ROWS } from "./state.js";

const SEVERITIES = ["FAILED", "INVALID", "WARNING", "NOTE"];
const VERDICTS = ["VALID", "INVALID", "FAILED", "NOT RUN"];
const MOST_LINKS = 12;

/* Each finding once, the most severe first. Cells fail for reasons of their own, so the reason counts, too. */
function findings(rows) {
  const byKey = new Map();
  for (const row of rows) {
    const failure = {
      severity: "FAILED",
      code: "not measured",
      seen: row.reason,
      cause: "",
      next_step: "",
    };
    for (const finding of [...(row.verdict === "FAILED" ? [failure] : []), ...row.remarks]) {
      const { severity, code, seen } = finding;
      const key = JSON.stringify([severity, code, severity === "FAILED" ? seen : ""]);
      if (!byKey.has(key)) byKey.set(key, { finding, rows: [] });
      byKey.get(key).rows.push(row);
    }
  }
  const rank = (entry) => SEVERITIES.indexOf(entry.finding.severity);
  return [...byKey.values()].sort((a, b) => rank(a) - rank(b) || b.rows.length - a.rows.length);
}

function drawFinding({ finding, rows }) {
  const { severity, code, seen, cause, next_step: next } = finding;
  const about = h("span", { class: "note" }, `· ${plural(rows.length, "cell")} · ${seen}`);
  const summary = h(
    "summary",
    {},
    h("span", { class: `tag ${severity}` }, severity),
    ` ${code} `,
    about,
  );
  const part = (name, text) => (text ? [h("b", {}, ` ${name}: `), text] : []);
  const links = rows.slice(0, MOST_LINKS).flatMap((row, i) => [i ? ", " : "", link(row)]);
  const more = rows.length > MOST_LINKS ? ` and ${rows.length - MOST_LINKS} more` : "";
  const text = h("p", {}, part("Seen", seen), part("Why", cause), part("Next", next));
  return h("details", {}, summary, h("div", { class: "finding" }, text, h("p", {}, links, more)));
}

export function drawTrust() {
  const rows = ROWS.filter((row) => row.run === NEWEST);
  const counts = VERDICTS.map((verdict) => [
    verdict,
    rows.filter((row) => row.verdict === verdict).length,
  ]);
  const known = counts.filter(([, n]) => n);
  const shown = known.map(([verdict, n]) => h("span", {}, h("b", {}, count(n)), ` ${verdict}`));
  const line = h("p", { class: "counts" }, shown, h("span", {}, DATA.trust));
  byId("trust").replaceChildren(line, ...findings(rows).map(drawFinding));
}
