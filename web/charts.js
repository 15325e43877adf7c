// Small charts as SVG: lines over time, and bars. Everything is drawn from numbers and text; nothing is HTML.

const SPACE = "http://www.w3.org/2000/svg";
const WIDTH = 320;
const HEIGHT = 128;
const LEFT = 34;
const BOTTOM = 16;

function mark(name, attributes, text) {
  const element = document.createElementNS(SPACE, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  if (text !== undefined) element.textContent = text;
  return element;
}

/** A number in few characters: 950, 1.2k, 3.4M. */
export function short(number) {
  for (const [size, unit] of [[1e9, "G"], [1e6, "M"], [1e3, "k"]]) {
    if (number >= size) return `${(number / size).toFixed(number < 10 * size ? 1 : 0)}${unit}`;
  }
  return number >= 10 || Number.isInteger(number) ? String(Math.round(number)) : number.toFixed(1);
}

/** The round number above `most`. */
function above(most) {
  const unit = 10 ** Math.floor(Math.log10(Math.max(most, 1)));
  return [1, 2, 5, 10].map((step) => step * unit).find((step) => step >= most);
}

function frame(svg, most, label) {
  svg.replaceChildren();
  svg.setAttribute("viewBox", `0 0 ${WIDTH} ${HEIGHT}`);
  svg.setAttribute("aria-label", label);
  for (const share of [0, 0.5, 1]) {
    const y = (HEIGHT - BOTTOM) * (1 - share) + 6 * share;
    svg.append(mark("line", { class: "grid", x1: LEFT, x2: WIDTH, y1: y, y2: y }));
    svg.append(mark("text", { x: LEFT - 4, y: y + 3, "text-anchor": "end" }, short(most * share)));
  }
  return (value) => HEIGHT - BOTTOM - (value / most) * (HEIGHT - BOTTOM - 6);
}

/** Lines over the same times: `series` is lists of numbers, the newest last; each is at most `room` long. */
export function lines(svg, series, room, labels) {
  const most = above(Math.max(...series.flat(), 1));
  const last = series.map((values, i) => `${labels[i]} ${short(values.at(-1) ?? 0)}`);
  const y = frame(svg, most, last.join(", "));
  series.forEach((values, i) => {
    const x = (at) => WIDTH - ((values.length - 1 - at) / (room - 1)) * (WIDTH - LEFT);
    const points = values.map((value, at) => `${x(at).toFixed(1)},${y(value).toFixed(1)}`);
    svg.append(mark("polyline", { class: i === 0 ? "first" : "second", points: points.join(" ") }));
  });
  svg.append(mark("text", { x: WIDTH, y: HEIGHT - 3, "text-anchor": "end" }, last.join(" · ")));
}

/** A bar for each `{ name, value }`. */
export function bars(svg, entries) {
  const most = above(Math.max(...entries.map((entry) => entry.value), 1));
  const y = frame(svg, most, entries.map((entry) => `${entry.name}: ${short(entry.value)}`).join(", "));
  const step = (WIDTH - LEFT) / Math.max(entries.length, 1);
  entries.forEach(({ name, value }, i) => {
    const width = Math.min(step * 0.7, 40);
    const x = LEFT + step * i + (step - width) / 2;
    const bar = mark("rect", { class: "bar-mark", x, y: y(value), width, height: HEIGHT - BOTTOM - y(value), rx: 2 });
    bar.append(mark("title", {}, `${name}: ${short(value)}`));
    svg.append(bar);
  });
  if (entries.length === 0) return;
  svg.append(mark("text", { x: LEFT, y: HEIGHT - 3 }, entries[0].name));
  if (entries.length > 1) svg.append(mark("text", { x: WIDTH, y: HEIGHT - 3, "text-anchor": "end" }, entries.at(-1).name));
}
