// The two charts: of all calls from the history that comes with the events, or of one tool or server, asked for anew.

import { byId, clock, setShown, setText } from "./dom.js";

const HEIGHT = 190;
const SHORTEST = 300; // seconds that are shown at least
const DASHES = [[], [6, 4], [2, 3]];

// Seconds stand there where the steps between two labels are shorter than a minute.
function hours(seconds, step) {
  const parts = { hour: "2-digit", minute: "2-digit", hour12: false, ...(step < 60 ? { second: "2-digit" } : {}) };
  return new Date(seconds * 1000).toLocaleTimeString([], parts);
}
const style = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

class Chart {
  constructor(place, labels, lines, isLog) {
    this.place = place;
    this.labels = labels;
    this.lines = lines; // of which of the three colours and dashes each is
    this.isLog = isLog;
    this.data = [[], [], [], []];
    this.made = null;
    new ResizeObserver(() => this.resize()).observe(place);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.remake());
  }

  show(data) {
    this.data = data;
    if (this.made) this.made.setData(data);
    else this.remake();
  }

  resize() {
    const width = this.place.clientWidth;
    if (this.made && width > 0 && width !== this.made.width) this.made.setSize({ width, height: HEIGHT });
    else if (!this.made) this.remake();
  }

  remake() {
    const width = this.place.clientWidth;
    if (width === 0 || this.data[0].length === 0) return;
    if (this.made) this.made.destroy();
    const axis = { stroke: style("--soft"), grid: { stroke: style("--line"), width: 1 }, ticks: { stroke: style("--line"), width: 1 }, font: "12px system-ui, sans-serif" };
    const scale = this.isLog ? { distr: 3, log: 10 } : { range: (_, low, high) => [0, Math.max(high, 1) * 1.1] };
    const series = this.labels.map((label, at) => {
      const stroke = style(`--line-${this.lines[at]}`);
      return { label, stroke, width: 1.75, dash: DASHES[this.lines[at] - 1], points: { show: false, size: 4, fill: stroke, filter: alone }, value: (_, value) => (value === null || value === undefined ? "–" : value.toLocaleString("en")) };
    });
    const options = {
      width, height: HEIGHT,
      scales: { x: { time: true, range: (chart) => span(chart.data[0]) }, y: scale },
      axes: [{ ...axis, size: 28, values: (_, ticks) => ticks.map((one) => hours(one, ticks[1] - ticks[0])), space: 70 }, { ...axis, size: 66, values: (_, ticks) => ticks.map((one) => (one === null ? "" : (+one.toPrecision(3)).toLocaleString("en", { maximumFractionDigits: 3 }))) }],
      series: [{ label: "at", value: (_, at) => (at === null || at === undefined ? "–" : clock(at)) }, ...series],
      cursor: { points: { size: 6 } },
      hooks: { setCursor: [showLast], setData: [showLast] },
    };
    this.made = new uPlot(options, this.data, this.place);
    showLast(this.made);
  }
}

// Places of values that have none beside them: no line shows those.
function alone(chart, at) {
  const values = chart.data[at];
  const has = (place) => values[place] !== null && values[place] !== undefined;
  return values.flatMap((_, place) => (has(place) && !has(place - 1) && !has(place + 1) ? [place] : []));
}

// From the first point to the last, and at least some minutes.
function span(times) {
  const last = times[times.length - 1];
  return [Math.min(times[0], last - SHORTEST), last];
}

// Where no pointer is in the chart, its legend says the newest values.
function showLast(chart) {
  if (chart.cursor.idx === null || chart.cursor.left < 0) chart.setLegend({ idx: chart.data[0].length - 1 });
}

// Points of which each is later than the one before: a clock may have been set back.
export function rising(points) {
  const kept = [];
  for (const point of points) {
    while (kept.length && kept[kept.length - 1][0] >= point[0]) kept.pop();
    kept.push(point);
  }
  return kept;
}

const columns = (points, ...places) => places.map((place) => points.map((point) => point[place]));

export class Charts {
  constructor() {
    this.calls = new Chart(byId("calls-chart"), ["calls", "errors", "refused"], [1, 3, 2], false);
    this.times = new Chart(byId("times-chart"), ["p50", "p95", "p99"], [1, 2, 3], true);
  }

  // points: [Unix seconds, calls, errors, refused, p50, p95, p99]
  show(points, unit) {
    const inOrder = rising(points);
    setText(byId("calls-caption"), `Calls per ${unit}`);
    const hasAny = inOrder.some((point) => point[1] > 0);
    setShown(byId("no-history"), !hasAny);
    setShown(document.querySelector(".charts"), hasAny);
    if (!hasAny) return;
    this.calls.show(columns(inOrder, 0, 1, 2, 3));
    this.times.show(columns(inOrder, 0, 4, 5, 6));
  }
}
