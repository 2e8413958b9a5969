/// <reference lib="dom" />
/** Two charts of one trial over time: offered and drained bytes above, backlog and window below. */
import type uPlot from "uplot";
import type { TrialSeries } from "../measure/series.ts";
import type { LogScale } from "./log_scale.ts";

export interface TimeChart {
  redraw(): void;
  destroy(): void;
}

export interface TimeChartOptions {
  uPlot: typeof uPlot;
  scale: LogScale;
  /** The element that contains the charts, and that receives the keys. */
  container: HTMLElement;
  series: TrialSeries;
  /** The CSS variable of the reader's colour. */
  hue: string;
  color: (name: string) => string;
  /** Called with the values at the selected time, as text. */
  onSelect: (text: string) => void;
}

/** Draws the charts. Refers only to its options, because pages embed its source text. */
export function makeTimeChart(options: TimeChartOptions): TimeChart {
  const { uPlot, scale, container, series, hue, color, onSelect } = options;
  const font = "11px ui-monospace, SFMono-Regular, Menlo, monospace";
  const sync = uPlot.sync(container.id);
  const bytes = (value: number | null | undefined) =>
    value === null || value === undefined ? "unknown" : scale.formatShort(value, "B", 4);

  const axis = (side: "x" | "y", last: boolean) => ({
    stroke: () => color("--faint"),
    font,
    grid: { stroke: () => color("--rule"), width: 1 },
    ticks: { stroke: () => color("--edge"), width: 1, size: 4 },
    size: side === "x" ? (last ? 30 : 10) : 66,
    gap: 3,
    space: side === "x" ? 56 : 34,
    values: (_u: uPlot, splits: number[]) =>
      splits.map((split) =>
        side === "y"
          ? scale.formatShort(split, "B")
          : last
          ? `${Number(split.toPrecision(3))} s`
          : ""
      ),
  });

  function chart(
    height: number,
    lines: { values: (number | null)[]; stroke: string; dash?: number[]; width: number }[],
    last: boolean,
  ): uPlot {
    const highest = Math.max(1, ...lines.flatMap(({ values }) => values.map((v) => v ?? 0)));
    return new uPlot(
      {
        width: Math.max(240, container.clientWidth),
        height,
        padding: [8, 24, 0, 0],
        legend: { show: false },
        scales: { x: { time: false }, y: { range: [0, highest * 1.08] } },
        axes: [axis("x", last), axis("y", last)],
        cursor: {
          y: false,
          drag: { x: false, y: false },
          sync: { key: sync.key },
          points: { size: 7 },
        },
        series: [
          {},
          ...lines.map(({ stroke, dash, width }) => ({
            stroke: () => color(stroke),
            width,
            ...(dash === undefined ? {} : { dash }),
            points: { show: false },
          })),
        ],
        hooks: {
          setCursor: [(u: uPlot) => {
            const { idx } = u.cursor;
            if (idx !== null && idx !== undefined) select(idx);
          }],
        },
      } as unknown as uPlot.Options,
      [series.time, ...lines.map(({ values }) => values)] as uPlot.AlignedData,
      container,
    );
  }

  let selected = -1;
  function select(i: number): void {
    if (i === selected) return;
    selected = i;
    onSelect(
      `${scale.formatShort(series.time[i]!, "s", 3)}: offered ${
        bytes(series.offered[i])
      }, drained ${bytes(series.drained[i])}, backlog ${bytes(series.backlog[i])}, window ${
        bytes(series.window[i])
      }`,
    );
  }

  const upper = chart(170, [
    { values: series.offered, stroke: "--ink", dash: [2, 3], width: 1.5 },
    { values: series.drained, stroke: hue, width: 2 },
  ], false);
  const lower = chart(150, [
    { values: series.backlog, stroke: hue, width: 2 },
    { values: series.window, stroke: "--ink", dash: [8, 4], width: 1.5 },
  ], true);
  for (const each of [upper, lower]) sync.sub(each);

  const onKey = (event: KeyboardEvent) => {
    const step = { ArrowLeft: -1, ArrowRight: 1, PageUp: -10, PageDown: 10 }[event.key];
    if (step === undefined) return;
    event.preventDefault();
    const next = Math.max(0, Math.min(series.time.length - 1, selected + step));
    const left = upper.valToPos(series.time[next]!, "x");
    for (const each of [upper, lower]) each.setCursor({ left, top: 1 }, false);
    select(next);
  };
  container.addEventListener("keydown", onKey);

  return {
    redraw() {
      upper.setSize({ width: Math.max(240, container.clientWidth), height: 170 });
      lower.setSize({ width: Math.max(240, container.clientWidth), height: 150 });
    },
    destroy() {
      container.removeEventListener("keydown", onKey);
      for (const each of [upper, lower]) {
        sync.unsub(each);
        each.destroy();
      }
    },
  };
}
