/* Numbers as text. */

/* Formats are made once: toLocaleString would make one per call, thousands while the page opens. */
const GROUPED = new Intl.NumberFormat("en", { maximumFractionDigits: 12 });
const PLAIN = new Intl.NumberFormat("en", { maximumFractionDigits: 12, useGrouping: false });

/* Three significant digits, never in scientific notation. */
export function sig(value, digits = 3) {
  if (value === null || value === undefined) return "";
  if (value === 0) return "0";
  const rounded = Number(Number(value).toPrecision(digits));
  return (Math.abs(rounded) >= 10000 ? GROUPED : PLAIN).format(rounded);
}

export const count = (value) => GROUPED.format(Number(value));
export const plural = (n, word) => `${count(n)} ${word}${n === 1 ? "" : "s"}`;
export const range = (low, high) =>
  low === null || high === null ? "" : `${sig(low)}–${sig(high)}`;

export function ms(value) {
  if (value === 0) return "0";
  if (value >= 1000) return `${sig(value / 1000)} s`;
  return value >= 1 ? `${sig(value)} ms` : `${sig(value * 1000)} µs`;
}
