/** A logarithmic axis: the position of a rate on it, and the rates that get a label. */

export interface LogScale {
  /** Position of a value on the axis: 0 at `from`, 1 at `to`. */
  positionOf(value: number, from: number, to: number): number;
  /** Round values between `from` and `to`, at most `most` of them where possible. */
  ticksOf(from: number, to: number, most: number): number[];
  /** Formats a quantity shortly: `500 kB/s`, `2 MB/s`; at most `digits` digits, default 6. */
  formatShort(value: number, unit: string, digits?: number): string;
}

/** Makes the functions. Refers to nothing outside itself, because pages embed its source text. */
export function makeLogScale(): LogScale {
  /** Ticks within a decade, the coarsest choice first. */
  const steps = [[1], [1, 3], [1, 2, 5], [1, 2, 3, 4, 6, 8]];
  const prefixes = ["", "k", "M", "G", "T", "P"];

  const decadesOf = (from: number, to: number) => {
    const decades: number[] = [];
    for (let power = Math.floor(Math.log10(from)); 10 ** power <= to; power++) {
      decades.push(10 ** power);
    }
    return decades;
  };
  /** Ticks at equal distances: over a short range, a logarithmic axis is nearly linear. */
  const evenly = (from: number, to: number, most: number) => {
    const rough = (to - from) / Math.max(1, most);
    const decade = 10 ** Math.floor(Math.log10(rough));
    const step = [1, 2, 5, 10].map((times) => times * decade).find((each) => each >= rough)!;
    const ticks: number[] = [];
    for (let i = Math.ceil(from / step); i * step <= to; i++) ticks.push(i * step);
    return ticks;
  };

  return {
    positionOf: (value, from, to) => Math.log(value / from) / Math.log(to / from),
    ticksOf(from, to, most) {
      if (to / from < 4) return evenly(from, to, most);
      const decades = decadesOf(from, to);
      let chosen: number[] = [];
      for (const within of steps) {
        const ticks = decades.flatMap((decade) => within.map((step) => step * decade))
          .filter((tick) => tick >= from && tick <= to);
        if (ticks.length > most) break;
        chosen = ticks;
      }
      if (chosen.length > 0) return chosen;
      // There are too many decades to label each one.
      const whole = decades.filter((decade) => decade >= from);
      const every = Math.max(1, Math.ceil(whole.length / most));
      return whole.filter((_, i) => i % every === 0);
    },
    formatShort(value, unit, digits = 6) {
      const size = Math.abs(value);
      // 1e-9 corrects rounding: the logarithm of 1000 is 2.9999999999999996.
      const power = size < 1 ? 0 : Math.floor(Math.log10(size) / 3 + 1e-9);
      const prefix = Math.min(prefixes.length - 1, power);
      return `${Number((value / 1000 ** prefix).toPrecision(digits))} ${prefixes[prefix]}${unit}`;
    },
  };
}

export const { positionOf, ticksOf, formatShort }: LogScale = makeLogScale();

/** A label on an axis of rates; `rate` in bytes a second. */
export const formatTick = (rate: number): string => formatShort(rate, "B/s");
