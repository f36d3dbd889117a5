/* A CSV file as evenly spaced rows, read as strictly as infer reads it: series.py, table.py and spacing.py in short.

Times are milliseconds since 1970 without a zone; web.py refuses the few forms of times that this cannot read. */

const NUMBER = /^[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?$/;
const MISSING = new Set(["", "nan", "na", "n/a", "null", "none", "-"]);
const LARGEST = 1e18;
const ISO = /^(\d{4})-(\d\d)-(\d\d)(?:(\D)(\d\d)(?::(\d\d)(?::(\d\d)(?:([.,])(\d{1,3}))?)?)?(Z|[+-]\d\d:?\d\d)?)?$/;
const DAY = 86_400_000;
const EPOCH_UNITS = { s: 1000, ms: 1 };

/** Series of {name, values: rows of the model's columns, times, form, frequency}. Throws for another table. */
export function readSeries(text, facts) {
  const { header, rows, lines } = readTable(text);
  const columnOf = (name) => {
    if (!header.includes(name)) throw new Error(`no such column: ${name}; the table has ${header.join(", ")}`);
    return header.indexOf(name);
  };
  const where = (row, column) => `line ${lines[row]}, column ${header[column]}: ${rows[row][column] || "(empty)"}`;
  const time = facts.time_column === null ? null : columnOf(facts.time_column);
  const series = facts.series_column === null ? null : columnOf(facts.series_column);
  const columns = facts.columns.map(columnOf);
  const groups = new Map();
  for (const [number, row] of rows.entries()) {
    const name = series === null ? "" : row[series];
    if (series !== null && !name) throw new Error(`a row of no series: ${where(number, series)}`);
    groups.set(name, [...(groups.get(name) ?? []), number]);
  }
  const numbers = rows.map((row, number) => columns.map((column) => numberOf(row[column], () => where(number, column))));
  const form = time === null ? null : formOf(rows.map((row) => row[time]), facts.time_format);
  const times = rows.map((row, number) => (time === null ? number : parseTime(row[time], form, () => where(number, time))));
  return [...groups].map(([name, its]) => {
    const itsTimes = time === null ? its.map((_, k) => k) : its.map((row) => times[row]);
    const frequency = onItsDay(facts.frequency, itsTimes);
    const steps = stepsOf(itsTimes, frequency, (k) => where(its[k], time ?? 0));
    const values = complete(its.map((row) => numbers[row]), steps, facts, (k, c) => where(its[k], c === null ? (time ?? 0) : columns[c]));
    if (values.length < facts.lookback) {
      throw new Error(`too short a series: ${name} ${values.length} rows; the model looks back on ${facts.lookback}`);
    }
    return { name, values, last: itsTimes.at(-1), form, frequency };
  });
}

/** The time `step` rows after a series' last one, in the file's own form. */
export function writeTime(series, step) {
  const { form, frequency, last } = series;
  if (form === null) return String(series.values.length - 1 + step);
  return form.write(timeAfter(last, frequency, step));
}

/** Header and rows of cells; lines: where each row begins. */
function readTable(text) {
  const firstLine = text.split(/\r\n|\r|\n/, 1)[0].replace(/"[^"]*"/g, "");
  const count = (mark) => firstLine.split(mark).length;
  const delimiter = [",", ";", "\t"].reduce((best, mark) => (count(mark) > count(best) ? mark : best));
  const records = [], lines = [];
  let line = 1;
  // A cell in quotes, with doubled ones inside, or plain up to a delimiter or the end of the line.
  const cell = new RegExp(`"((?:[^"]|"")*)"(?=${delimiter}|[\\r\\n]|$)|((?!")[^\\r\\n${delimiter}]*)(?=${delimiter}|[\\r\\n]|$)`, "y");
  let position = 0, record = [], start = 1;
  while (position <= text.length) {
    cell.lastIndex = position;
    const match = cell.exec(text);
    if (!match) throw new Error(`a broken row: line ${line}; double the quotes inside of quotes, and close each one`);
    record.push((match[1]?.replaceAll('""', '"') ?? match[2]).trim());
    line += match[0].split(/\r\n|\r|\n/).length - 1;
    position = cell.lastIndex;
    if (text[position] === delimiter) {
      position += 1;
      continue;
    }
    if (record.some((each) => each)) {
      records.push(record);
      lines.push(start);
    }
    position += text.startsWith("\r\n", position) ? 2 : 1;
    line += 1;
    [record, start] = [[], line];
  }
  const [header, ...rows] = records;
  if (!rows.length) throw new Error("no rows; give a table with a header and rows");
  for (const [column, name] of header.entries()) {
    if (!name || NUMBER.test(name) || header.indexOf(name) !== column) {
      throw new Error(`not a header: column ${column + 1}: ${name || "(empty)"}; give every column a name of its own in the first line`);
    }
  }
  const ragged = rows.findIndex((row) => row.length !== header.length);
  if (ragged >= 0) throw new Error(`a ragged row: line ${lines[ragged + 1]}: ${rows[ragged].length} cells, the header has ${header.length}`);
  return { header, rows, lines: lines.slice(1) };
}

/** A cell's number; NaN where it is missing. */
function numberOf(cell, where) {
  if (MISSING.has(cell.toLowerCase())) return NaN;
  if (!NUMBER.test(cell)) throw new Error(`not a number: ${where()}; write plain digits with a point`);
  if (Math.abs(Number(cell)) > LARGEST) throw new Error(`too large a number: ${where()}`);
  return Number(cell);
}

/** How a column writes its times: {parse(cell) → milliseconds or null, write(milliseconds)}. */
function formOf(cells, format) {
  if (format in EPOCH_UNITS) {
    const unit = EPOCH_UNITS[format];
    return { parse: (cell) => (/^-?\d{1,15}$/.test(cell) ? Number(cell) * unit : null), write: (time) => String(Math.round(time / unit)) };
  }
  return format === null ? isoForm(cells) : strftimeForm(cells, format);
}

const two = (value) => String(value).padStart(2, "0");

/** Milliseconds of a date's parts, or null where there is no such date. */
function timeOf(year, month, day, hour = 0, minute = 0, second = 0, millisecond = 0) {
  const date = new Date(0);
  date.setUTCFullYear(year, month - 1, day);
  date.setUTCHours(hour, minute, second, millisecond);
  const fits = date.getUTCMonth() === month - 1 && date.getUTCDate() === day && hour < 24 && minute < 60 && second < 60;
  return fits ? date.getTime() : null;
}

/** ISO 8601; the longest cell shows the form, as some programs leave the clock out at midnight. */
function isoForm(cells) {
  const longest = cells.reduce((best, cell) => (cell.length > best.length ? cell : best));
  const shown = ISO.exec(longest);
  if (!shown) throw new Error(`a form of timestamps that this page cannot continue: ${longest}; write 2024-01-31 12:00:00`);
  const [, , , , separator, hour, minute, second, point, fraction, zone] = shown;
  const parse = (cell) => {
    const match = ISO.exec(cell);
    if (!match) return null;
    if ((match[10] ?? "") !== (zone ?? "")) throw new Error(`mixed time zones: ${cell}; write all timestamps in one zone`);
    const [year, month, day, , h, m, s] = match.slice(1).map(Number);
    return timeOf(year, month, day, h || 0, m || 0, s || 0, Number((match[9] ?? "0").padEnd(3, "0")));
  };
  const write = (time) => {
    const date = new Date(time);
    let text = `${String(date.getUTCFullYear()).padStart(4, "0")}-${two(date.getUTCMonth() + 1)}-${two(date.getUTCDate())}`;
    if (hour !== undefined) text += separator + two(date.getUTCHours());
    if (minute !== undefined) text += `:${two(date.getUTCMinutes())}`;
    if (second !== undefined) text += `:${two(date.getUTCSeconds())}`;
    if (fraction !== undefined) text += point + String(date.getUTCMilliseconds()).padStart(3, "0").slice(0, fraction.length);
    return text + (zone ?? "");
  };
  return { parse, write };
}

/** A format of strftime with %Y, %m, %d, %H, %M and %S. */
function strftimeForm(cells, format) {
  const names = [];
  const pattern = format.replace(/[.*+?^${}()|[\]\\]/g, "\\$&").replace(/%(.)/g, (_, name) => {
    names.push(name);
    return name === "Y" ? "(\\d{4})" : "(\\d{1,2})";
  });
  const whole = new RegExp(`^${pattern}$`);
  const part = (match, name, missing) => (names.includes(name) ? Number(match[names.indexOf(name) + 1]) : missing);
  const unpadded = new Set();
  for (const match of cells.map((cell) => whole.exec(cell)).filter(Boolean)) {
    for (const name of ["d", "m", "H"]) {
      if (names.includes(name) && match[names.indexOf(name) + 1].length === 1) unpadded.add(name);
    }
  }
  const parse = (cell) => {
    const match = whole.exec(cell);
    if (!match) return null;
    const parts = [["Y", 1900], ["m", 1], ["d", 1], ["H", 0], ["M", 0], ["S", 0]].map(([name, missing]) => part(match, name, missing));
    return timeOf(...parts);
  };
  const write = (time) => {
    const date = new Date(time);
    const values = { Y: String(date.getUTCFullYear()).padStart(4, "0"), m: date.getUTCMonth() + 1, d: date.getUTCDate() };
    Object.assign(values, { H: date.getUTCHours(), M: date.getUTCMinutes(), S: date.getUTCSeconds() });
    return format.replace(/%(.)/g, (_, name) => (unpadded.has(name) ? String(values[name]) : two(values[name])));
  };
  return { parse, write };
}

function parseTime(cell, form, where) {
  const time = form.parse(cell);
  if (time === null) throw new Error(`not a timestamp: ${where()}`);
  return time;
}

/** How many steps of the model's frequency each row lies behind the one before it. */
function stepsOf(times, frequency, where) {
  const { unit, count } = frequency;
  if (unit === "row") return times.map(() => 1);
  if (times.length < 3) throw new Error("too few rows; a frequency shows in three rows at least");
  for (let k = 1; k < times.length; k++) {
    if (times[k] === times[k - 1]) throw new Error(`a timestamp stands twice: ${where(k)}`);
    if (times[k] < times[k - 1]) throw new Error(`rows are not in the order of time: ${where(k)}`);
  }
  const steps = stepsIn[unit](times, frequency);
  const usual = mostCommon(steps);
  const uneven = steps.findIndex((step) => !Number.isInteger(step));
  if (usual !== 1) throw new Error(`another frequency than the model's, which was trained on rows ${describe(unit, count)} apart`);
  if (uneven >= 0) throw new Error(`rows are not evenly spaced: ${where(uneven + 1)}; most are ${describe(unit, count)} apart`);
  return [1, ...steps];
}

const describe = (unit, count) => (unit === "microsecond" ? `${count / 1e6} seconds` : `${count} ${unit}s`);

/** Steps between neighboring times by unit, not whole where a time lies in between. */
const stepsIn = {
  microsecond: (times, { count }) => times.slice(1).map((time, k) => (1000 * (time - times[k])) / count),
  month: (times, { count, month_day: monthDay }) => {
    const months = times.map((time) => {
      const date = new Date(time);
      const fits = liesOnDay(date, monthDay) && time % DAY === times[0] % DAY;
      return fits ? 12 * date.getUTCFullYear() + date.getUTCMonth() : NaN;
    });
    return months.slice(1).map((month, k) => (month - months[k]) / count);
  },
  "business day": (times) => {
    const numbers = times.map((time) => (isWorkday(time) && time % DAY === times[0] % DAY ? workdaysBefore(time) : NaN));
    return numbers.slice(1).map((number, k) => number - numbers[k]);
  },
};

/** The frequency with the day of the month that a table's rows lie on: the model's, where they fit it, or the latest. */
function onItsDay(frequency, times) {
  if (frequency.unit !== "month") return frequency;
  const dates = times.map((time) => new Date(time));
  const latest = Math.max(...dates.map((date) => date.getUTCDate()));
  const monthDay = Math.max(frequency.month_day, latest);
  return { ...frequency, month_day: dates.every((date) => liesOnDay(date, monthDay)) ? monthDay : latest };
}

const liesOnDay = (date, monthDay) => date.getUTCDate() === Math.min(monthDay, daysOf(date));
const daysOf = (date) => new Date(Date.UTC(date.getUTCFullYear(), date.getUTCMonth() + 1, 0)).getUTCDate();
const isWorkday = (time) => ![0, 6].includes(new Date(time).getUTCDay());

/** Days from Monday to Friday before a workday, since Monday, 5 January 1970. */
function workdaysBefore(time) {
  const days = Math.floor(time / DAY) - 4;
  return 5 * Math.floor(days / 7) + (days - 7 * Math.floor(days / 7));
}

/** The value that stands there most often; the smallest of several. */
function mostCommon(values) {
  const counts = new Map();
  for (const value of values) counts.set(value, (counts.get(value) ?? 0) + 1);
  return [...counts].sort((a, b) => b[1] - a[1] || a[0] - b[0])[0][0];
}

/** The time `step` rows after another. */
function timeAfter(last, { unit, count, month_day: monthDay }, step) {
  if (unit === "microsecond") return last + (step * count) / 1000;
  if (unit === "business day") {
    const [monday, number] = [4 * DAY, workdaysBefore(last) + step];
    return monday + (7 * Math.floor(number / 5) + (number - 5 * Math.floor(number / 5))) * DAY + (((last % DAY) + DAY) % DAY);
  }
  const date = new Date(last);
  const first = new Date(Date.UTC(date.getUTCFullYear(), date.getUTCMonth() + step * count, 1));
  const day = Math.min(monthDay, daysOf(first));
  return first.getTime() + (day - 1) * DAY + (((last % DAY) + DAY) % DAY);
}

/** Rows for every step of time, filled by the model's rule. where(row, column or null) names a cell. */
function complete(values, steps, { fill }, where) {
  const gap = steps.findIndex((step) => step > 1);
  if (gap >= 0 && fill === "none") throw new Error(`rows are missing: before ${where(gap, null)}`);
  const at = [];
  steps.forEach((step, k) => at.push((at[k - 1] ?? -1) + step));
  if (at.at(-1) + 1 > 2 * values.length) throw new Error("more rows are missing than there; check the timestamps");
  const whole = Array.from({ length: at.at(-1) + 1 }, () => new Array(values[0].length).fill(NaN));
  at.forEach((place, k) => (whole[place] = [...values[k]]));
  for (let column = 0; column < values[0].length; column++) {
    const row = values.findIndex((each) => Number.isNaN(each[column]));
    if (row >= 0 && fill === "none") throw new Error(`a value is missing: ${where(row, column)}`);
    for (const end of fill === "linear" ? [0, values.length - 1] : [0]) {
      if (Number.isNaN(values[end][column])) throw new Error(`the rule for missing numbers, ${fill}, cannot know a value: ${where(end, column)}`);
    }
    fillColumn(whole, column, fill);
  }
  return whole;
}

function fillColumn(whole, column, fill) {
  let before = 0;
  for (let row = 1; row < whole.length; row++) {
    if (Number.isNaN(whole[row][column])) continue;
    const [from, to] = [whole[before][column], whole[row][column]];
    for (let k = before + 1; k < row; k++) {
      whole[k][column] = fill === "linear" ? from + ((to - from) / (row - before)) * (k - before) : from;
    }
    before = row;
  }
  for (let k = before + 1; k < whole.length; k++) whole[k][column] = whole[before][column];
}
