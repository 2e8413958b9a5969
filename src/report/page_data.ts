/** The data that a page's script gets for its charts. */
import type { SeriesAround, TrialSeries } from "../measure/series.ts";
import { type Curve, type View, viewOf } from "./curve.ts";
import { formatMessageSize, type ReaderReport, type Results } from "./report.ts";
import { HUES, type ReaderStyle } from "./styles.ts";
import { formatEstimate } from "./text_curve.ts";

export interface PageReader {
  name: string;
  /** `13 B` */
  size: string;
  style: ReaderStyle;
  limit: { lower: number; upper: number; atLeast: boolean; text: string } | null;
  curve: Curve;
  series?: SeriesAround;
}

export interface PageData {
  readers: PageReader[];
  /** The message sizes, the smallest first. */
  sizes: string[];
  /** The initial view of the curves of each message size. */
  views: Record<string, View>;
  hues: number;
}

/** Most samples of one time series: a screen cannot show more. */
const SAMPLES = 160;
/** Size of all series of a page together, so that the page can be sent by mail. Bytes. */
const SERIES_BYTES = 220_000;
/** Typical size of one sample as JSON. Bytes. */
const SAMPLE_BYTES = 34;

export function pageData({ readers }: Results): PageData {
  const shown = readers.toSorted((a, b) => a.size - b.size);
  const sizes = shown.map(({ size }) => formatMessageSize(size))
    .filter((size, i, all) => all.indexOf(size) === i);
  const count = shown.filter(({ series }) => series !== undefined).length * 2;
  const samples = Math.min(SAMPLES, Math.floor(SERIES_BYTES / SAMPLE_BYTES / Math.max(1, count)));
  return {
    readers: shown.map((reader) => pageReader(reader, samples)),
    sizes,
    views: Object.fromEntries(
      sizes.map((size) => [size, viewOf(shown.filter((r) => formatMessageSize(r.size) === size))]),
    ),
    hues: HUES.length,
  };
}

function pageReader({ name, size, style, limit, curve, series }: ReaderReport, samples: number) {
  const { points, line } = curve;
  const reader: PageReader = {
    name,
    size: formatMessageSize(size),
    style,
    limit: limit && {
      lower: rounded(limit.lower),
      upper: rounded(limit.upper),
      atLeast: limit.atLeast,
      text: formatEstimate(limit),
    },
    curve: {
      points: points.map((point) => ({
        ...point,
        offered: rounded(point.offered),
        drained: rounded(point.drained),
        seconds: rounded(point.seconds),
      })),
      line: line.map(({ offered, drained }) => ({
        offered: rounded(offered),
        drained: rounded(drained),
      })),
    },
  };
  if (series === undefined) return reader;
  const { below, above } = series;
  return { ...reader, series: { below: thinned(below, samples), above: thinned(above, samples) } };
}

/** Six digits: more than the precision of a trial. */
const rounded = (value: number) => Number(value.toPrecision(6));

/** Keeps `samples` samples at even distances, with the first and the last one. */
function thinned(series: TrialSeries, samples: number): TrialSeries {
  const { length } = series.time;
  const count = Math.min(length, Math.max(2, samples));
  const indexes = Array.from(
    { length: count },
    (_, i) => count < 2 ? 0 : Math.round(i * (length - 1) / (count - 1)),
  );
  const pick = (values: readonly number[]) => indexes.map((i) => rounded(values[i]!));
  return {
    rate: series.rate,
    time: pick(series.time),
    offered: pick(series.offered),
    drained: pick(series.drained),
    backlog: pick(series.backlog),
    window: indexes.map((i) => {
      const window = series.window[i] ?? null;
      return window === null ? null : rounded(window);
    }),
  };
}
