/// <reference lib="dom" />
/** In a page: the curves, drained against offered, to zoom into and to read values from. */
import type uPlot from "uplot";
import type { View } from "./curve.ts";
import type { LogScale } from "./log_scale.ts";
import type { PageReader } from "./page_data.ts";

export interface CurveChart {
  /** Which readers are drawn, by their places. */
  show(readers: ReadonlySet<number>): void;
  view(view: View): void;
  /** Makes what is shown smaller by a factor, around what is being read or the middle. */
  zoom(factor: number): void;
  /** After colours or the page's width have changed. */
  redraw(): void;
}

export interface CurveChartOptions {
  uPlot: typeof uPlot;
  scale: LogScale;
  /** Where it goes; takes the keyboard. */
  place: HTMLElement;
  readers: readonly PageReader[];
  first: View;
  color: (name: string) => string;
  /** What is being read: a point of a reader; null: nothing. */
  onRead: (reader: number, point: number) => void;
  onReset: () => void;
}

/** Draws them. Needs nothing but its options: pages take it along as text. */
export function makeCurveChart(options: CurveChartOptions): CurveChart {
  const { uPlot, scale, place, readers, color } = options;
  let view = options.first;
  let shown: ReadonlySet<number> = new Set();
  /** What is being read. */
  let reader = -1;
  let point = -1;

  // One list of rates for all: uPlot wants series on one axis. A line may have two points at one rate.
  const rates = new Map<number, { reader: number; drained: number }[]>();
  readers.forEach(({ curve }, place) => {
    let last = 0;
    for (const { offered, drained } of curve.line) {
      last = offered > last ? offered : last * (1 + 1e-9);
      rates.set(last, [...rates.get(last) ?? [], { reader: place, drained }]);
    }
  });
  const xs = [...rates.keys()].sort((a, b) => a - b);
  const ys = readers.map((_, place) =>
    xs.map((x) => rates.get(x)!.find((each) => each.reader === place)?.drained ?? null)
  );
  const hueOf = (place: number) => color(`--h${readers[place]!.look.hue}`);
  const font = "11px ui-monospace, SFMono-Regular, Menlo, monospace";

  const spot = document.createElement("div");
  spot.className = "spot";
  spot.hidden = true;

  // A phone's is nearly a square, a screen's as high as it can be seen at once.
  const height = () => Math.round(Math.max(320, Math.min(560, place.clientWidth * 0.62)));
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
      width: Math.max(280, place.clientWidth),
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
        ...readers.map(({ look }, place) => ({
          stroke: () => hueOf(place),
          width: 2,
          dash: look.dash,
          spanGaps: true,
          show: false,
          points: { show: false },
        })),
      ],
      hooks: {
        drawAxes: [drawGround],
        draw: [drawMarks],
        setCursor: [(u: uPlot) => {
          const { left = -1, top = -1 } = u.cursor;
          if (left >= 0 && top >= 0) readNearest(left, top);
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
    place,
  );
  chart.over.append(spot);

  /** The diagonal, and under each knee the interval of its limit. */
  function drawGround(u: uPlot): void {
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
    for (const place of shown) {
      const { limit } = readers[place]!;
      if (limit === null || limit.atLeast) continue;
      const left = x(limit.lower);
      const width = Math.max(2 * devicePixelRatio, x(limit.upper) - left);
      const top = Math.max(bbox.top, y(limit.upper));
      ctx.fillStyle = hueOf(place);
      ctx.globalAlpha = 0.28;
      ctx.fillRect(left, top, width, bbox.top + bbox.height - top);
      ctx.globalAlpha = 1;
      // A foot on the axis: seen where the band is a hair.
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
    // uPlot leaves the dash of the last line behind.
    ctx.setLineDash([]);
    ctx.lineWidth = 1.5 * devicePixelRatio;
    ctx.fillStyle = color("--panel");
    for (const place of shown) {
      const { curve, look } = readers[place]!;
      ctx.strokeStyle = hueOf(place);
      // Every trial, faintly: how much they agree; then those of the line.
      ctx.globalAlpha = 0.3;
      for (const { offered, drained } of curve.points) mark(u, look.marker, offered, drained, 2);
      ctx.globalAlpha = 1;
      for (const { offered, drained } of curve.line) mark(u, look.marker, offered, drained, 3.4);
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

  function readNearest(left: number, top: number): void {
    let best = Infinity;
    let found: [number, number] | undefined;
    for (const place of shown) {
      readers[place]!.curve.points.forEach(({ offered, drained }, i) => {
        const x = chart.valToPos(offered, "x");
        const y = chart.valToPos(drained, "y");
        const distance = (x - left) ** 2 + (y - top) ** 2;
        if (distance < best) {
          best = distance;
          found = [place, i];
        }
      });
    }
    if (found !== undefined) read(...found);
  }

  function read(nextReader: number, nextPoint: number): void {
    reader = nextReader;
    point = nextPoint;
    placeSpot();
    options.onRead(reader, point);
  }

  function placeSpot(): void {
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
    placeSpot();
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
    // As far as there is something to see: digits at one end, decades at the other.
    if (right / left > 1.002 && right / left < 1e9) setView({ left, right, bottom, top });
  }

  place.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const places = [...shown].filter((place) => readers[place]!.curve.points.length > 0);
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
    if (step === undefined || places.length === 0) return;
    event.preventDefault();
    step();

    function stepPoint(by: number): void {
      if (!places.includes(reader)) return read(places[0]!, 0);
      const { length } = readers[reader]!.curve.points;
      read(reader, Math.max(0, Math.min(length - 1, point + by)));
    }
    function stepReader(by: number): void {
      const next = places[(places.indexOf(reader) + by + places.length) % places.length]!;
      const { points } = readers[next]!.curve;
      // Where the other one was read, as near as there is a trial.
      const { offered = points[0]?.offered ?? 1 } = readers[reader]?.curve.points[point] ?? {};
      const distance = (i: number) => Math.abs(Math.log(points[i]!.offered / offered));
      read(next, points.reduce((best, _, i) => distance(i) < distance(best) ? i : best, 0));
    }
  });

  return {
    show(next) {
      shown = next;
      readers.forEach((_, place) => {
        const on = shown.has(place);
        if (chart.series[place + 1]!.show !== on) chart.setSeries(place + 1, { show: on });
      });
      chart.redraw(false, true);
      placeSpot();
    },
    view: setView,
    zoom,
    redraw() {
      chart.setSize({ width: Math.max(280, place.clientWidth), height: height() });
      chart.redraw(false, true);
      placeSpot();
    },
  };
}
