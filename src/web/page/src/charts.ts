// One chart: a title, the value of now, the lines, a legend that follows the cursor. uPlot draws.

import uPlot from "uplot";
import type { SeriesName } from "./api";
import { h, setText } from "./dom";
import { hourMinute } from "./format";
import { lonely, stack, type History } from "./history";
import { colour, onThemeChange } from "./theme";

export interface ChartSpec {
  title: string;
  series: LineSpec[];
  /** Draws the series that are not `loose` on top of each other. */
  stacked?: boolean;
  /** The upper end of the scale for the largest value drawn. */
  top: (largest: number) => number;
  /** Labels of the scale, and values of the legend. */
  format: (value: number) => string;
  /** The value beside the title. */
  headline: (value: (name: SeriesName) => number | null) => string;
}

export interface LineSpec {
  name: SeriesName;
  label: string;
  /** A custom property of the style sheet. */
  colour: string;
  /** A dashed line of its own in a stacked chart. */
  loose?: boolean;
}

export interface Chart {
  element: HTMLElement;
  update: (history: History, now: number) => void;
  resize: () => void;
}

type Values = (number | null)[];

/** Values older than this are not "now", seconds. */
const FRESH = 5;
const HEIGHT = 132;
/** Half a time label, pixels. */
const LABEL_HALF = 16;
/** Opacity, as two hex digits, of areas on top of each other, and of the area below a line. */
const STACK_FILL = "b3";
const LINE_FILL = "1f";

/** `hover` gets the time under the cursor, null when the cursor leaves. */
export function createChart(spec: ChartSpec, hover: (time: number | null) => void): Chart {
  const headline = h("span", { class: "chart-now" });
  const holder = h("div", { class: "chart-plot" });
  const legend = createLegend(spec);
  const element = h(
    "section",
    { class: "card chart", "aria-label": spec.title },
    h("header", {}, h("h3", { text: spec.title }), headline),
    holder,
    legend.element,
  );

  let raw: Values[] = spec.series.map(() => []);
  let newest: Values = [];
  let largest = 0;
  let range: [number, number] = [0, 1];

  const plot = new uPlot(
    options(spec, {
      x: () => range,
      y: () => [0, spec.top(largest)],
      cursor: (index, time) => {
        legend.show(index === null ? newest : raw.map((values) => values[index] ?? null));
        hover(time);
      },
    }),
    [[], ...spec.series.map(() => [])] as unknown as uPlot.AlignedData,
    holder,
  );
  onThemeChange(() => plot.redraw());

  return {
    element,
    update(history, now) {
      raw = spec.series.map((line) => history.series(line.name));
      const drawn = spec.stacked ? stacked(spec, raw) : raw;
      largest = drawn.reduce((most, values) => values.reduce<number>((a, b) => Math.max(a, b ?? 0), most), 0);
      range = [now - history.window, now];
      plot.setData([history.times, ...drawn] as uPlot.AlignedData);
      newest = spec.series.map((line) => history.latest(line.name, now, FRESH));
      setText(headline, spec.headline((name) => history.latest(name, now, FRESH)));
      if (plot.cursor.idx == null) legend.show(newest);
    },
    resize() {
      const width = holder.clientWidth;
      if (width > 0 && width !== plot.width) plot.setSize({ width, height: HEIGHT });
    },
  };
}

/** The lines of a stacked chart, each on the sum of those before it. */
function stacked(spec: ChartSpec, raw: Values[]): Values[] {
  const sums = stack(raw.filter((_, index) => !spec.series[index]?.loose));
  let next = 0;
  return raw.map((values, index) => (spec.series[index]?.loose ? values : (sums[next++] ?? values)));
}

function createLegend(spec: ChartSpec) {
  const values = spec.series.map(() => h("b"));
  const items = spec.series.map((line, index) => {
    const key = h("i", { class: line.loose ? "key loose" : "key" });
    key.style.color = `var(${line.colour})`;
    return h("li", {}, key, line.label, values[index] ?? null);
  });
  return {
    element: h("ul", { class: "legend" }, ...items),
    show: (now: Values) =>
      values.forEach((element, index) => {
        const value = now[index];
        setText(element, value == null ? "–" : spec.format(value));
      }),
  };
}

interface Feed {
  x: () => [number, number];
  y: () => [number, number];
  cursor: (index: number | null, time: number | null) => void;
}

function options(spec: ChartSpec, feed: Feed): uPlot.Options {
  return {
    width: 260,
    height: HEIGHT,
    padding: [6, 2, 0, 0],
    legend: { show: false },
    scales: { x: { time: true, range: feed.x }, y: { range: feed.y } },
    cursor: {
      y: false,
      drag: { x: false, y: false },
      sync: { key: "host" },
      points: { size: 6, width: 0, fill: (_, index) => colour(spec.series[index - 1]?.colour ?? "--text") },
    },
    axes: axes(spec),
    series: [{}, ...spec.series.map((line) => series(spec, line))],
    bands: spec.stacked ? bands(spec) : [],
    hooks: {
      setCursor: [
        (plot) => {
          const index = plot.cursor.idx ?? null;
          const inside = (plot.cursor.left ?? -1) >= 0;
          feed.cursor(inside ? index : null, inside && index !== null ? (plot.data[0][index] ?? null) : null);
        },
      ],
    },
  };
}

function axes(spec: ChartSpec): uPlot.Axis[] {
  const grid = { stroke: () => colour("--grid"), width: 1 };
  const shared = { font: `11px ${colour("--sans")}`, stroke: () => colour("--faint"), ticks: { show: false }, grid };
  return [
    {
      ...shared,
      size: 20,
      gap: 4,
      space: 44,
      incrs: [60, 120, 300, 600],
      grid: { show: false },
      values: (plot, splits) => splits.map((time) => (isInside(plot, time) ? hourMinute(time) : "")),
    },
    {
      ...shared,
      size: 50,
      gap: 6,
      splits: (_, __, low, high) => [low, (low + high) / 2, high],
      values: (_, splits) => splits.map(spec.format),
    },
  ];
}

/** False for a time whose label would be cut at the chart's edge, or touch the scale's labels. */
function isInside(plot: uPlot, time: number): boolean {
  const at = plot.valToPos(time, "x");
  return at >= LABEL_HALF && at <= plot.over.clientWidth - LABEL_HALF;
}

/** A line; or, in a stack, only the edge that the areas of `bands` end at, the lowest filled down to zero. */
function series(spec: ChartSpec, line: LineSpec): uPlot.Series {
  const area = spec.stacked && !line.loose;
  const lowest = line === spec.series[0];
  return {
    stroke: () => colour(line.colour),
    width: area ? 0 : line.loose ? 1 : 1.5,
    ...(line.loose && { dash: [4, 3] }),
    ...(!area && !line.loose && { fill: () => colour(line.colour) + LINE_FILL }),
    ...(area && lowest && { fill: () => colour(line.colour) + STACK_FILL }),
    points: {
      show: true,
      size: 3,
      filter: (plot, index) => lonely(plot.data[index] as Values),
      fill: () => colour(line.colour),
      width: 0,
    },
  };
}

/** Fills each stacked line down to the one below it. */
function bands(spec: ChartSpec): uPlot.Band[] {
  const stackedAt = spec.series.flatMap((line, index) => (line.loose ? [] : [index + 1]));
  return stackedAt.slice(1).map((upper, below) => ({
    series: [upper, stackedAt[below] ?? 0],
    fill: () => colour(spec.series[upper - 1]?.colour ?? "--text") + STACK_FILL,
  }));
}
