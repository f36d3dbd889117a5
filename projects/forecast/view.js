/* Asks for a table; shows each column's past, its forecast and interval as a curve, and all numbers as a table. */

import { curve, element, table } from "./show.js";

export const title = "What comes next?";
const NUM_SHOWN_PAST = 3; // times the horizon

export function about({ facts }) {
  const interval = facts.quantiles.length > 1 ? ` with an interval from ${facts.quantiles[0]} to ${facts.quantiles.at(-1)}` : "";
  return `Looks back on ${facts.lookback} rows of ${facts.columns.join(", ")} and forecasts ${facts.horizon}${interval}.`;
}

export function controls({ facts }) {
  const header = [facts.time_column, facts.series_column, ...facts.columns].filter((name) => name !== null).join(",");
  const label = `Table with the columns ${header}, at least ${facts.lookback} rows, the newest last`;
  const horizon = { name: "horizon", label: "Rows to forecast", min: 1, max: facts.horizon, step: 1, value: facts.horizon };
  const options = facts.horizon > 1 ? [{ kind: "range", ...horizon }] : [];
  return { input: { kind: "table", label, example: `${header}\n…` }, options };
}

export function show(container, record, input, page) {
  const { columns, quantiles, time_column: time, series_column: series } = page.model.facts;
  const names = Object.keys(record.rows[0]);
  const timeName = time ?? names[series === null ? 0 : 1];
  const groups = new Map();
  for (const row of record.rows) {
    const name = series === null ? "" : row[series];
    groups.set(name, [...(groups.get(name) ?? []), row]);
  }
  for (const [group, rows] of groups) {
    const history = series === null ? record.history : record.history[group];
    for (const column of columns) {
      // Of a column's numbers the forecast stands first, then the others by rising quantile.
      const first = names.indexOf(column);
      const others = quantiles.length > 1 ? names.slice(first + 1, first + quantiles.length) : [];
      const next = rows.map((row) => ({
        value: row[column],
        low: others.length ? row[others[0]] : null,
        high: others.length ? row[others.at(-1)] : null,
        name: String(row[timeName]),
      }));
      const past = (history?.[column] ?? []).slice(-Math.max(24, NUM_SHOWN_PAST * rows.length));
      const caption = `${group} ${column}`.trim();
      const chart = curve(past, next, `forecast of ${caption}`);
      container.append(element("figure", {}, element("figcaption", {}, caption), chart));
    }
  }
  container.append(element("h3", {}, "Numbers"), table(record.rows));
}
