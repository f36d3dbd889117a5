/* What several projects show: elements, bars, curves, images. Foreign text only ever becomes text. */

const LABEL_WIDTH = 120; // of a timestamp below a curve

/** An HTML element with attributes and children; children that are texts become text nodes. */
export function element(name, attributes = {}, ...children) {
  return filled(document.createElement(name), attributes, children);
}

/** The same for SVG. */
export function drawn(name, attributes = {}, ...children) {
  return filled(document.createElementNS("http://www.w3.org/2000/svg", name), attributes, children);
}

function filled(node, attributes, children) {
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  node.append(...children);
  return node;
}

/** A share as people read it. */
export function percent(share) {
  return `${(100 * share).toFixed(1)} %`;
}

/** Labels with bars: rows of {label, probability}, the first one stressed. */
export function bars(rows) {
  const list = element("ol", { class: "bars" });
  for (const { label, probability } of rows) {
    const bar = drawn(
      "svg",
      { viewBox: "0 0 100 1", preserveAspectRatio: "none", "aria-hidden": "true" },
      drawn("rect", { width: 100 * probability, height: 1 }),
    );
    const name = element("span", { class: "label" }, label);
    list.append(element("li", {}, name, element("span", { class: "number" }, percent(probability)), bar));
  }
  return list;
}

/** An image element, once it is decoded. source: a data URL or a Blob. */
export async function imageOf(source, alt) {
  const address = typeof source === "string" ? source : URL.createObjectURL(source);
  const image = element("img", { src: address, alt });
  await image.decode();
  return image;
}

/** An element with a caption below it. */
export function figure(content, caption) {
  return element("figure", {}, content, element("figcaption", {}, caption));
}

/** A small chart of past values, and of what comes after them with its interval.

past: numbers; next: [{value, low, high, name}], low and high null where there is no interval. */
export function curve(past, next, label) {
  // On a phone the chart is drawn narrower, so that its text keeps its size.
  const width = Math.max(300, Math.min(640, innerWidth - 60)), height = 220, left = 56, bottom = 24, top = 8;
  const all = [...past, ...next.flatMap((row) => [row.value, row.low ?? row.value, row.high ?? row.value])];
  let least = Math.min(...all), most = Math.max(...all);
  if (least === most) [least, most] = [least - 1, most + 1];
  const x = (number) => left + ((width - left - 8) * number) / Math.max(1, past.length + next.length - 1);
  const y = (value) => top + (height - top - bottom) * (1 - (value - least) / (most - least));
  const line = (points, name) =>
    drawn("polyline", { class: name, points: points.map(([a, b]) => `${a.toFixed(1)},${b.toFixed(1)}`).join(" ") });
  const chart = drawn("svg", { viewBox: `0 0 ${width} ${height}`, class: "curve", role: "img", "aria-label": label });
  for (const value of [least, (least + most) / 2, most]) {
    chart.append(
      drawn("line", { class: "grid", x1: left, x2: width - 8, y1: y(value), y2: y(value) }),
      drawn("text", { x: left - 6, y: y(value) + 4, "text-anchor": "end" }, Number(value.toPrecision(3)).toString()),
    );
  }
  const at = (number) => x(past.length + number);
  if (next.every((row) => row.low != null)) {
    const edge = [...next.map((row, k) => [at(k), y(row.high)]), ...next.map((row, k) => [at(k), y(row.low)]).reverse()];
    chart.append(drawn("polygon", { class: "interval", points: edge.map((point) => point.join(",")).join(" ") }));
  }
  const before = past.map((value, k) => [x(k), y(value)]);
  chart.append(line(before, "past"), line([...before.slice(-1), ...next.map((row, k) => [at(k), y(row.value)])], "next"));
  const last = next.length - 1;
  for (const number of at(last) - at(0) > LABEL_WIDTH ? [0, last] : [last]) {
    chart.append(drawn("text", { x: at(number), y: height - 6, "text-anchor": "end" }, next[number].name));
  }
  return chart;
}

/** A table that scrolls in its own frame. rows: objects with the same keys. */
export function table(rows) {
  const names = Object.keys(rows[0]);
  const head = element("tr", {}, ...names.map((name) => element("th", { scope: "col" }, name)));
  const body = rows.map((row) => element("tr", {}, ...names.map((name) => element("td", {}, String(row[name])))));
  const all = element("table", {}, element("thead", {}, head), element("tbody", {}, ...body));
  return element("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "table" }, all);
}
