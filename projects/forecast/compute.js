/* The rows that follow a table, as infer's records. */

import { readSeries, writeTime } from "./series.js";

export async function answer(input, run, { facts }) {
  const { columns, lookback, quantiles, series_column: seriesColumn } = facts;
  const horizon = input.options.horizon ?? facts.horizon;
  const suffixes = suffixesOf(facts);
  const order = [...suffixes.keys()].sort((a, b) => (suffixes[a] !== "") - (suffixes[b] !== ""));
  const timeName = timeNameOf(facts, suffixes);
  const rows = [];
  const history = {};
  for (const series of readSeries(input.text, facts)) {
    const recent = series.values.slice(-lookback);
    const outputs = await run({ series: ["float32", Float32Array.from(recent.flat()), [1, lookback, columns.length]] });
    const levels = (outputs.quantiles ?? outputs.forecast).data;
    if (!levels.every(Number.isFinite)) throw new Error("A forecast is not a finite number; compare the table with the training data.");
    for (let step = 0; step < horizon; step++) {
      const row = seriesColumn === null ? {} : { [seriesColumn]: series.name };
      row[timeName] = writeTime(series, step + 1);
      columns.forEach((column, c) => {
        for (const k of order) {
          const value = levels[(step * columns.length + c) * quantiles.length + k];
          row[column + suffixes[k]] = Number(value.toPrecision(7));
        }
      });
      rows.push(row);
    }
    const past = Object.fromEntries(columns.map((column, c) => [column, recent.map((values) => values[c])]));
    if (seriesColumn === null) Object.assign(history, past);
    else history[series.name] = past;
  }
  return { rows, history };
}

/** What each level's column has behind its name, as infer's. */
function suffixesOf({ columns, quantiles, time_column: time, series_column: series }) {
  let suffixes = quantiles.map((level) => `_q${level}`);
  suffixes[0] = "_lower";
  suffixes[suffixes.length - 1] = "_upper";
  suffixes[Math.floor(quantiles.length / 2)] = "";
  const taken = new Set([...columns, time, series]);
  while (columns.some((column) => suffixes.some((suffix) => suffix && taken.has(column + suffix)))) {
    suffixes = suffixes.map((suffix) => (suffix ? `_${suffix}` : ""));
  }
  return suffixes;
}

/** The name of the records' time: the table's, or one that no other column has. */
function timeNameOf({ columns, time_column: time, series_column: series }, suffixes) {
  if (time !== null) return time;
  const names = new Set([...columns.flatMap((column) => suffixes.map((suffix) => column + suffix)), series]);
  let name = "row";
  while (names.has(name)) name = `_${name}`;
  return name;
}
