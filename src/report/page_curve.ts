/// <reference lib="dom" />
/** The chart of curves in a page, with zoom and with values at the pointer or by keyboard. */
import type uPlot from "uplot";
import type { View } from "./curve.ts";
import type { LogScale } from "./log_scale.ts";
import type { PageReader } from "./page_data.ts";

export interface CurveChart {
  /** Sets which readers are drawn, by index. */
  show(readers: ReadonlySet<number>): void;
  view(view: View): void;
  /** Zooms in by a factor, around the selected point or else the middle. */
  zoom(factor: number): void;
  /** To call after colours or the page's width have changed. */
  redraw(): void;
}

export interface CurveChartOptions {
  uPlot: typeof uPlot;
  scale: LogScale;
  /** The element that contains the chart, and that receives the keys. */
  container: HTMLElement;
  readers: readonly PageReader[];
  first: View;
  color: (name: string) => string;
  /** Called when a point is selected; both are indexes. */
  onSelect: (reader: number, point: number) => void;
  onReset: () => void;
}

/** Draws the curves. Refers only to its options, because pages embed its source text. */
export function makeCurveChart(options: CurveChartOptions): CurveChart {
  const { uPlot, scale, container, readers, color } = options;
  let view = options.first;
  let shown: ReadonlySet<number> = new Set();
  /** Indexes of the selected point; -1: none. */
  let reader = -1;
  let point = -1;

  // uPlot requires one list of x values for all series. A line may have two points at one rate, so
  // the second one is moved a little.
  const rates = new Map<number, { reader: number; drained: number }[]>();
  readers.forEach(({ curve }, index) => {
    let last = 0;
    for (const { offered, drained } of curve.line) {
      last = offered > last ? offered : last * (1 + 1e-9);
      rates.set(last, [...rates.get(last) ?? [], { reader: index, drained }]);
    }
  });
  const xs = [...rates.keys()].sort((a, b) => a - b);
  const ys = readers.map((_, index) =>
    xs.map((x) => rates.get(x)!.find((each) => each.reader === index)?.drained ?? null)
  );
  const hueOf = (index: number) => color(`--h${readers[index]!.style.hue}`);
  const font = "11px ui-monospace, SFMono-Regular, Menlo, monospace";

  const spot = document.createElement("div");
  spot.className = "spot";
  spot.hidden = true;

  // Nearly a square on a phone; on a large screen low enough to be seen without scrolling.
  const height = () => Math.round(Math.max(320, Math.min(560, container.clientWidth * 0.62)));
  const axis = (side: "x" | "y") => ({
    scale: side,
    stroke: () => color("--faint"),
    font,
    grid: { stroke: () => color("--rule"), width: 1 },
    ticks: { stroke: () => color("--edge"), width: 1, size: 5 },
    size: side === "x" ? 34 : 76,
    gap: 4,
    splits: (u: uPlot, _axis: number, min: number, max: number) => {
      const length = side === "x" ? u.bbox.width : u.bbox.height;
      const room = length / devicePixelRatio / (side === "x" ? 84 : 44);
      return scale.ticksOf(min, max, Math.max(2, Math.floor(room)));
    },
    filter: (_u: uPlot, splits: number[]) => splits,
    values: (_u: uPlot, splits: number[]) => splits.map((rate) => scale.formatShort(rate, "B/s")),
  });

  const chart = new uPlot(
    {
      width: Math.max(280, container.clientWidth),
      height: height(),
      padding: [12, 28, 0, 0],
      legend: { show: false },
      scales: {
        x: { distr: 3, time: false, auto: false, range: () => [view.left, view.right] },
        y: { distr: 3, auto: false, range: () => [view.bottom, view.top] },
      },
      axes: [axis("x"), axis("y")],
      cursor: {
        points: { show: false },
        drag: { x: true, y: true, setScale: false, dist: 6 },
        bind: { dblclick: () => () => (options.onReset(), null) },
      },
      series: [
        {},
        ...readers.map(({ style }, index) => ({
          stroke: () => hueOf(index),
          width: 2,
          dash: style.dash,
          spanGaps: true,
          show: false,
          points: { show: false },
        })),
      ],
      hooks: {
        drawAxes: [drawBackground],
        draw: [drawMarks],
        setCursor: [(u: uPlot) => {
          const { left = -1, top = -1 } = u.cursor;
          if (left >= 0 && top >= 0) selectNearest(left, top);
        }],
        setSelect: [(u: uPlot) => {
          const { left, top, width, height } = u.select;
          if (width < 6 && height < 6) return;
          const next = { ...view };
          if (width >= 6) {
            next.left = u.posToVal(left, "x");
            next.right = u.posToVal(left + width, "x");
          }
          if (height >= 6) {
            next.top = u.posToVal(top, "y");
            next.bottom = u.posToVal(top + height, "y");
          }
          u.setSelect({ left: 0, top: 0, width: 0, height: 0 }, false);
          setView(next);
        }],
      },
    } as unknown as uPlot.Options,
    [xs, ...ys] as uPlot.AlignedData,
    container,
  );
  chart.over.append(spot);

  /** Draws the diagonal, and a band for the interval of each limit. */
  function drawBackground(u: uPlot): void {
    const { ctx, bbox } = u;
    const x = (rate: number) => u.valToPos(rate, "x", true);
    const y = (rate: number) => u.valToPos(rate, "y", true);
    ctx.save();
    ctx.beginPath();
    ctx.rect(bbox.left, bbox.top, bbox.width, bbox.height);
    ctx.clip();
    ctx.strokeStyle = color("--faint");
    ctx.lineWidth = 1.5 * devicePixelRatio;
    ctx.setLineDash([1 * devicePixelRatio, 4 * devicePixelRatio]);
    const from = Math.min(view.left, view.bottom);
    const to = Math.max(view.right, view.top);
    ctx.beginPath();
    ctx.moveTo(x(from), y(from));
    ctx.lineTo(x(to), y(to));
    ctx.stroke();
    ctx.setLineDash([]);
    for (const index of shown) {
      const { limit } = readers[index]!;
      if (limit === null || limit.atLeast) continue;
      const left = x(limit.lower);
      const width = Math.max(2 * devicePixelRatio, x(limit.upper) - left);
      const top = Math.max(bbox.top, y(limit.upper));
      ctx.fillStyle = hueOf(index);
      ctx.globalAlpha = 0.28;
      ctx.fillRect(left, top, width, bbox.top + bbox.height - top);
      ctx.globalAlpha = 1;
      // A triangle on the axis, which is visible even where the band is very narrow.
      ctx.beginPath();
      const foot = bbox.top + bbox.height;
      const middle = left + width / 2;
      const size = 5 * devicePixelRatio;
      ctx.moveTo(middle, foot - size * 1.5);
      ctx.lineTo(middle + size, foot);
      ctx.lineTo(middle - size, foot);
      ctx.fill();
    }
    ctx.restore();
  }

  function drawMarks(u: uPlot): void {
    const { ctx, bbox } = u;
    ctx.save();
    ctx.beginPath();
    ctx.rect(bbox.left, bbox.top, bbox.width, bbox.height);
    ctx.clip();
    // uPlot does not reset the dash pattern of the last line.
    ctx.setLineDash([]);
    ctx.lineWidth = 1.5 * devicePixelRatio;
    ctx.fillStyle = color("--panel");
    for (const index of shown) {
      const { curve, style } = readers[index]!;
      ctx.strokeStyle = hueOf(index);
      // Every trial, faintly, to show how much they agree; then the points of the line.
      ctx.globalAlpha = 0.3;
      for (const { offered, drained } of curve.points) mark(u, style.marker, offered, drained, 2);
      ctx.globalAlpha = 1;
      for (const { offered, drained } of curve.line) mark(u, style.marker, offered, drained, 3.4);
    }
    ctx.restore();
  }

  function mark(u: uPlot, marker: string, offered: number, drained: number, radius: number): void {
    const { ctx } = u;
    const x = u.valToPos(offered, "x", true);
    const y = u.valToPos(drained, "y", true);
    const r = radius * devicePixelRatio;
    const outlines: Record<string, number[]> = {
      square: [-0.9, -0.9, 0.9, -0.9, 0.9, 0.9, -0.9, 0.9],
      triangle: [0, -1.2, 1.1, 0.8, -1.1, 0.8],
      down: [0, 1.2, 1.1, -0.8, -1.1, -0.8],
      diamond: [0, -1.3, 1.3, 0, 0, 1.3, -1.3, 0],
    };
    ctx.beginPath();
    const outline = outlines[marker];
    if (outline !== undefined) {
      for (let i = 0; i < outline.length; i += 2) {
        ctx.lineTo(x + outline[i]! * r, y + outline[i + 1]! * r);
      }
      ctx.closePath();
    } else if (marker === "cross" || marker === "plus") {
      const [across, along] = marker === "cross" ? [1, 1] : [1.2, 0];
      ctx.moveTo(x - across! * r, y - along! * r);
      ctx.lineTo(x + across! * r, y + along! * r);
      ctx.moveTo(x + along! * r, y - across! * r);
      ctx.lineTo(x - along! * r, y + across! * r);
    } else {
      ctx.arc(x, y, r, 0, 2 * Math.PI);
    }
    if (outline !== undefined || marker === "circle") ctx.fill();
    ctx.stroke();
  }

  function selectNearest(left: number, top: number): void {
    let best = Infinity;
    let found: [number, number] | undefined;
    for (const index of shown) {
      readers[index]!.curve.points.forEach(({ offered, drained }, i) => {
        const x = chart.valToPos(offered, "x");
        const y = chart.valToPos(drained, "y");
        const distance = (x - left) ** 2 + (y - top) ** 2;
        if (distance < best) {
          best = distance;
          found = [index, i];
        }
      });
    }
    if (found !== undefined) select(...found);
  }

  function select(nextReader: number, nextPoint: number): void {
    reader = nextReader;
    point = nextPoint;
    moveSpot();
    options.onSelect(reader, point);
  }

  function moveSpot(): void {
    const at = readers[reader]?.curve.points[point];
    spot.hidden = at === undefined || !shown.has(reader);
    if (at === undefined) return;
    const x = chart.valToPos(at.offered, "x");
    const y = chart.valToPos(at.drained, "y");
    if (!(x >= 0 && y >= 0 && x <= chart.over.clientWidth && y <= chart.over.clientHeight)) {
      spot.hidden = true;
    }
    spot.style.transform = `translate(${x}px, ${y}px)`;
    spot.style.borderColor = hueOf(reader);
  }

  function setView(next: View): void {
    view = next;
    chart.batch(() => {
      chart.setScale("x", { min: view.left, max: view.right });
      chart.setScale("y", { min: view.bottom, max: view.top });
    });
    moveSpot();
  }

  function zoom(factor: number): void {
    const at = spot.hidden ? undefined : readers[reader]?.curve.points[point];
    const around = (from: number, to: number, value = Math.sqrt(from * to)) => {
      const share = Math.log(value / from) / Math.log(to / from);
      const decades = Math.log(to / from) / factor;
      return [value / Math.exp(decades * share), value * Math.exp(decades * (1 - share))] as const;
    };
    const [left, right] = around(view.left, view.right, at?.offered);
    const [bottom, top] = around(view.bottom, view.top, at?.drained);
    // Beyond these bounds there is nothing to see.
    if (right / left > 1.002 && right / left < 1e9) setView({ left, right, bottom, top });
  }

  container.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const indexes = [...shown].filter((index) => readers[index]!.curve.points.length > 0);
    const steps: Record<string, () => void> = {
      ArrowLeft: () => stepPoint(-1),
      ArrowRight: () => stepPoint(1),
      ArrowUp: () => stepReader(-1),
      ArrowDown: () => stepReader(1),
      "+": () => zoom(1.6),
      "=": () => zoom(1.6),
      "-": () => zoom(1 / 1.6),
      "0": options.onReset,
      Escape: options.onReset,
    };
    const step = steps[event.key];
    if (step === undefined || indexes.length === 0) return;
    event.preventDefault();
    step();

    function stepPoint(by: number): void {
      if (!indexes.includes(reader)) return select(indexes[0]!, 0);
      const { length } = readers[reader]!.curve.points;
      select(reader, Math.max(0, Math.min(length - 1, point + by)));
    }
    function stepReader(by: number): void {
      const next = indexes[(indexes.indexOf(reader) + by + indexes.length) % indexes.length]!;
      const { points } = readers[next]!.curve;
      // The trial whose offered rate is closest to that of the point selected before.
      const { offered = points[0]?.offered ?? 1 } = readers[reader]?.curve.points[point] ?? {};
      const distance = (i: number) => Math.abs(Math.log(points[i]!.offered / offered));
      select(next, points.reduce((best, _, i) => distance(i) < distance(best) ? i : best, 0));
    }
  });

  return {
    show(next) {
      shown = next;
      readers.forEach((_, index) => {
        const on = shown.has(index);
        if (chart.series[index + 1]!.show !== on) chart.setSeries(index + 1, { show: on });
      });
      chart.redraw(false, true);
      moveSpot();
    },
    view: setView,
    zoom,
    redraw() {
      chart.setSize({ width: Math.max(280, container.clientWidth), height: height() });
      chart.redraw(false, true);
      moveSpot();
    },
  };
}
