/** Curves as text: drained over offered rate on logarithmic axes, for a terminal of any width. */
import { printable } from "../text/printable.ts";
import { formatByteRate } from "../text/units.ts";
import { type View, viewOf } from "./curve.ts";
import { formatInterval } from "./limit_table.ts";
import { formatTick, positionOf, ticksOf } from "./log_scale.ts";
import type { RateEstimate, ReaderReport } from "./report.ts";
import { HUES, type ReaderStyle } from "./styles.ts";

export interface TextCurveOptions {
  /** Columns of the terminal; values below 24 count as 24. */
  width: number;
  /** Whether to use colours. */
  color: boolean;
}

/** A character, and the style of the reader that it belongs to; undefined: part of the axes. */
interface Cell {
  char: string;
  style?: ReaderStyle;
}

const LEAST_WIDTH = 24;
/** Rows of the plot without its axis. */
const LEAST_ROWS = 10;
const MOST_ROWS = 24;
/** Rows for each column: a character is about twice as high as it is wide. */
const ASPECT = 0.42;
/** Columns for one label on the axis of the offered rate, with the gap after it. */
const LABEL_COLUMNS = 11;
/** Columns to the left of the plot. */
const LEFT_COLUMNS = 9;

/** The limit of a reader: `19.98-20.17 MB/s`, `above 4.10 GB/s`, or `-`. */
export function formatEstimate(estimate: RateEstimate | null): string {
  if (estimate === null) return "-";
  if (estimate.atLeast) return `above ${formatByteRate(estimate.lower)}`;
  return estimate.lower < estimate.upper
    ? formatInterval(estimate.lower, estimate.upper)
    : formatByteRate(estimate.middle);
}

/** The plot, the limits under its axis, and a legend. */
export function formatTextCurve(
  readers: readonly ReaderReport[],
  { width, color }: TextCurveOptions,
): string {
  const view = viewOf(readers);
  const columns = Math.max(LEAST_WIDTH, Math.floor(width)) - LEFT_COLUMNS - 1;
  const rows = Math.min(MOST_ROWS, Math.max(LEAST_ROWS, Math.round(columns * ASPECT)));
  const plot = new Plot(view, columns, rows);
  plot.drawDiagonal();
  for (const reader of readers) plot.drawLine(reader);
  for (const reader of readers) plot.drawMarks(reader);
  const paint = (cells: readonly Cell[]) =>
    cells.map(({ char, style }) => style !== undefined && color ? painted(char, style) : char).join(
      "",
    )
      .trimEnd();
  const labels = new Map(
    ticksOf(view.bottom, view.top, Math.floor(rows / 3))
      .map((tick) => [plot.rowOf(tick), formatTick(tick)]),
  );
  const lines = ["drained".padStart(LEFT_COLUMNS - 1)];
  plot.cells.forEach((cells, row) => {
    const label = labels.get(row);
    const left = label === undefined
      ? `${" ".repeat(LEFT_COLUMNS)}│`
      : `${label.padStart(LEFT_COLUMNS - 1)} ┤`;
    lines.push(left + paint(cells));
  });
  lines.push(...axis(plot, view, columns));
  for (const cells of limitRows(plot, readers, columns)) {
    lines.push(`${"limit".padStart(LEFT_COLUMNS - 1)}  ${paint(cells)}`);
  }
  lines.push("", ...legend(readers, width, color));
  return lines.join("\n");
}

const painted = (text: string, { hue }: ReaderStyle) =>
  `\x1b[${HUES[hue]!.terminal}m${text}\x1b[0m`;

class Plot {
  readonly cells: Cell[][];
  readonly #view: View;
  readonly #columns: number;
  readonly #rows: number;

  constructor(view: View, columns: number, rows: number) {
    this.#view = view;
    this.#columns = columns;
    this.#rows = rows;
    this.cells = Array.from(
      { length: rows },
      () => Array.from({ length: columns }, (): Cell => ({ char: " " })),
    );
  }

  columnOf(offered: number): number {
    const { left, right } = this.#view;
    return Math.round(positionOf(offered, left, right) * (this.#columns - 1));
  }

  rowOf(drained: number): number {
    const { bottom, top } = this.#view;
    return Math.round((1 - positionOf(drained, bottom, top)) * (this.#rows - 1));
  }

  #put(column: number, row: number, cell: Cell): void {
    if (this.cells[row]?.[column] !== undefined) this.cells[row][column] = cell;
  }

  drawDiagonal(): void {
    const { left, right } = this.#view;
    for (let column = 0; column < this.#columns; column++) {
      const rate = left * (right / left) ** (column / (this.#columns - 1));
      this.#put(column, this.rowOf(rate), { char: "·" });
    }
  }

  drawLine({ curve: { line }, style }: ReaderReport): void {
    line.slice(1).forEach((to, i) => {
      const from = line[i]!;
      // Between two points on the diagonal, the diagonal is drawn already.
      if (keptUp(from) && keptUp(to)) return;
      const fromColumn = this.columnOf(from.offered);
      const fromRow = this.rowOf(from.drained);
      const toColumn = this.columnOf(to.offered);
      const toRow = this.rowOf(to.drained);
      const steps = Math.max(Math.abs(toColumn - fromColumn), Math.abs(toRow - fromRow));
      const across = toColumn - fromColumn;
      const down = toRow - fromRow;
      const char = Math.abs(down) > 2 * Math.abs(across)
        ? "│"
        : Math.abs(across) > 3 * Math.abs(down)
        ? "─"
        : down < 0
        ? "╱"
        : "╲";
      for (let step = 1; step < steps; step++) {
        const column = Math.round(fromColumn + across * step / steps);
        this.#put(column, Math.round(fromRow + down * step / steps), { char, style });
      }
    });
  }

  drawMarks({ curve: { line }, style }: ReaderReport): void {
    for (const { offered, drained } of line) {
      this.#put(this.columnOf(offered), this.rowOf(drained), { char: style.letter, style });
    }
  }
}

const keptUp = ({ offered, drained }: { offered: number; drained: number }) =>
  drained > offered * 0.9;

/** The axis of the offered rate, with as many labels as fit. */
function axis(plot: Plot, view: View, columns: number): string[] {
  const ruler = Array.from({ length: columns }, () => "─");
  const labels = Array.from({ length: LEFT_COLUMNS + 1 + columns }, () => " ");
  const most = Math.max(1, Math.floor(columns / LABEL_COLUMNS));
  let free = 0;
  for (const tick of ticksOf(view.left, view.right, most)) {
    const column = plot.columnOf(tick);
    const text = formatTick(tick);
    ruler[column] = "┬";
    const start = Math.min(
      LEFT_COLUMNS + 1 + column - (text.length >> 1),
      labels.length - text.length,
    );
    if (start < free) continue;
    labels.splice(start, text.length, ...text);
    free = start + text.length + 1;
  }
  return [
    `${" ".repeat(LEFT_COLUMNS)}└${ruler.join("")}`,
    labels.join("").trimEnd(),
    "offered".padStart(LEFT_COLUMNS + 1 + columns),
  ];
}

/**
 * The rows under the axis that mark each limit; `[A]` where its interval is wide enough to show.
 */
function limitRows(plot: Plot, readers: readonly ReaderReport[], columns: number): Cell[][] {
  const rows: Cell[][] = [];
  for (const { limit, style } of readers) {
    if (limit === null) continue;
    const from = Math.max(0, plot.columnOf(limit.lower));
    const to = Math.min(columns - 1, plot.columnOf(limit.upper));
    const text = limit.atLeast
      ? `${style.letter}>`
      : to - from < 2
      ? style.letter
      : `[${style.letter.padStart((to - from) >> 1, "-").padEnd(to - from - 1, "-")}]`;
    const taken = (row: Cell[]) =>
      Array.from({ length: text.length + 2 }, (_, i) => row[from + i - 1])
        .some((cell) => cell !== undefined && cell.char !== " ");
    let row = rows.find((each) => !taken(each));
    if (row === undefined) {
      row = Array.from({ length: columns }, (): Cell => ({ char: " " }));
      rows.push(row);
    }
    [...text].forEach((char, i) => row![from + i] = { char, style });
  }
  return rows;
}

function legend(readers: readonly ReaderReport[], width: number, color: boolean): string[] {
  const limits = readers.map(({ limit }) => formatEstimate(limit));
  const room = Math.max(...limits.map((limit) => limit.length));
  return [
    ...readers.map(({ name, style, overload }, i) => {
      const mark = color ? painted(style.letter, style) : style.letter;
      const after = overload?.collapsed ? "  collapses" : "";
      const left = Math.max(8, width - 2 - room - 2 - after.length);
      const text = printable(name);
      const short = text.length > left ? `${text.slice(0, left - 1)}…` : text;
      return `${mark} ${limits[i]!.padEnd(room)}  ${short}${after}`;
    }),
    "· on this line, everything offered is drained",
  ];
}
