/** Curves as an SVG picture, readable on a light and on a dark page. */
import { escapeMarkup } from "../text/escape.ts";
import { viewOf } from "./curve.ts";
import { formatTick, positionOf, ticksOf } from "./log_scale.ts";
import type { ReaderReport } from "./report.ts";
import { HUES, type Marker, type ReaderStyle } from "./styles.ts";
import { formatEstimate } from "./text_curve.ts";

export interface SvgOptions {
  title: string;
  /** One line under the plot: the machine that it was measured on. */
  caption: string;
}

const WIDTH = 880;
const PLOT = { left: 74, right: 600, top: 64, bottom: 438 };
const LABEL_LEFT = 640;
const LABEL_HEIGHT = 36;
/** Characters of a name that fit. */
const NAME_LENGTH = 28;

/** The picture, as the content of a file. */
export function formatSvg(
  readers: readonly ReaderReport[],
  { title, caption }: SvgOptions,
): string {
  const view = viewOf(readers);
  const height = Math.max(500, PLOT.top + 30 + readers.length * LABEL_HEIGHT);
  const x = (rate: number) =>
    PLOT.left + positionOf(rate, view.left, view.right) * (PLOT.right - PLOT.left);
  const y = (rate: number) =>
    PLOT.bottom - positionOf(rate, view.bottom, view.top) * (PLOT.bottom - PLOT.top);
  const described = readers.map(({ name, limit, overload }) =>
    `${name}: ${formatEstimate(limit)}${overload?.collapsed ? ", collapses beyond it" : ""}`
  ).join("; ");
  const diagonal = { from: Math.max(view.left, view.bottom), to: Math.min(view.right, view.top) };
  const parts = [
    `<rect class="ground" x=".5" y=".5" width="${WIDTH - 1}" height="${height - 1}" rx="8"/>`,
    `<text class="title" x="${PLOT.left}" y="30">${escapeMarkup(title)}</text>`,
    `<text class="small" x="${PLOT.left}" y="49">drained over offered rate, bytes a second</text>`,
    ...ticksOf(view.left, view.right, 7).map((tick) =>
      `<path class="grid" d="M${at(x(tick))} ${PLOT.top}V${PLOT.bottom}"/>` +
      `<text class="tick" text-anchor="middle" x="${at(x(tick))}" y="${PLOT.bottom + 18}">${
        formatTick(tick)
      }</text>`
    ),
    ...ticksOf(view.bottom, view.top, 8).map((tick) =>
      `<path class="grid" d="M${PLOT.left} ${at(y(tick))}H${PLOT.right}"/>` +
      `<text class="tick" text-anchor="end" x="${PLOT.left - 8}" y="${at(y(tick) + 4)}">${
        formatTick(tick)
      }</text>`
    ),
    `<text class="tick" text-anchor="end" x="${PLOT.right}" y="${PLOT.bottom + 36}">offered</text>`,
    `<path class="diagonal" d="M${at(x(diagonal.from))} ${at(y(diagonal.from))}L${
      at(x(diagonal.to))
    } ${at(y(diagonal.to))}"/>`,
    `<path class="frame" d="M${PLOT.left} ${PLOT.top}V${PLOT.bottom}H${PLOT.right}"/>`,
    `<clipPath id="plot"><rect x="${PLOT.left - 5}" y="${PLOT.top}" width="${
      PLOT.right - PLOT.left + 10
    }" height="${PLOT.bottom - PLOT.top + 5}"/></clipPath>`,
    `<g clip-path="url(#plot)">`,
    ...readers.map((reader) => limitBand(reader, x, y)),
    ...readers.map((reader) => curve(reader, x, y)),
    "</g>",
    ...labels(readers, x, y),
    `<text class="tick" x="${PLOT.left}" y="${height - 16}">${escapeMarkup(caption)}</text>`,
  ];
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${height}" width="${WIDTH}" ` +
    `height="${height}" role="img" aria-labelledby="t d">\n` +
    `<title id="t">${escapeMarkup(title)}</title>\n<desc id="d">${
      escapeMarkup(described)
    }</desc>\n` +
    `<style>${pictureStyle()}</style>\n${parts.join("\n")}\n</svg>\n`;
}

type Scale = (rate: number) => number;
const at = (pixels: number) => String(Math.round(pixels * 10) / 10);

/** A band from the axis up to the curve, as wide as the interval of the limit. */
function limitBand({ limit, style }: ReaderReport, x: Scale, y: Scale): string {
  if (limit === null || limit.atLeast) return "";
  const left = x(limit.lower);
  const width = Math.max(1.5, x(limit.upper) - left);
  const top = y(limit.upper);
  return `<rect class="band h${style.hue}" x="${at(left)}" y="${at(top)}" width="${
    at(width)
  }" height="${at(Math.max(0, PLOT.bottom - top))}"/>`;
}

function curve({ curve: { line }, style }: ReaderReport, x: Scale, y: Scale): string {
  const points = line.map(({ offered, drained }) => [x(offered), y(drained)] as const);
  const path = points.map(([left, top], i) => `${i === 0 ? "M" : "L"}${at(left)} ${at(top)}`);
  const marks = points.map(([left, top]) => markerPath(style.marker, left, top));
  return `<g class="h${style.hue}"><path class="line"${dashes(style)} d="${path.join("")}"/>` +
    `<path class="mark" d="${marks.join("")}"/></g>`;
}

const dashes = ({ dash }: ReaderStyle) =>
  dash.length === 0 ? "" : ` stroke-dasharray="${dash.join(" ")}"`;

/** The outline of a marker around a point, as SVG path data. */
export function markerPath(marker: Marker, x: number, y: number, r = 3.2): string {
  const move = (points: readonly (readonly [number, number])[]) =>
    points.map(([dx, dy], i) => `${i === 0 ? "M" : "L"}${at(x + dx * r)} ${at(y + dy * r)}`).join(
      "",
    );
  switch (marker) {
    case "circle":
    case "ring":
      return `M${at(x - r)} ${at(y)}a${r} ${r} 0 1 0 ${2 * r} 0a${r} ${r} 0 1 0 ${-2 * r} 0z`;
    case "square":
      return `${move([[-0.9, -0.9], [0.9, -0.9], [0.9, 0.9], [-0.9, 0.9]])}z`;
    case "triangle":
      return `${move([[0, -1.2], [1.1, 0.8], [-1.1, 0.8]])}z`;
    case "down":
      return `${move([[0, 1.2], [1.1, -0.8], [-1.1, -0.8]])}z`;
    case "diamond":
      return `${move([[0, -1.3], [1.3, 0], [0, 1.3], [-1.3, 0]])}z`;
    case "cross":
      return move([[-1, -1], [1, 1]]) + move([[1, -1], [-1, 1]]);
    case "plus":
      return move([[-1.2, 0], [1.2, 0]]) + move([[0, -1.2], [0, 1.2]]);
  }
}

/** The names beside the ends of their curves, moved apart where they would overlap. */
function labels(readers: readonly ReaderReport[], x: Scale, y: Scale): string[] {
  const wanted = readers.map((reader) => {
    const end = reader.curve.line.at(-1);
    return {
      reader,
      end: end && { left: x(end.offered), top: y(end.drained) },
      top: end === undefined ? PLOT.bottom : y(end.drained),
    };
  }).toSorted((a, b) => a.top - b.top);
  let free = PLOT.top - 8;
  for (const each of wanted) {
    each.top = Math.max(each.top, free);
    free = each.top + LABEL_HEIGHT;
  }
  // Move those back up that were pushed out of the picture at the bottom.
  let last = Math.max(PLOT.bottom, PLOT.top - 8 + (readers.length - 1) * LABEL_HEIGHT);
  for (const each of wanted.toReversed()) {
    each.top = Math.min(each.top, last);
    last = each.top - LABEL_HEIGHT;
  }
  return wanted.map(({ reader: { name, style, limit, overload }, end, top }) => {
    const short = name.length > NAME_LENGTH ? `${name.slice(0, NAME_LENGTH - 1)}…` : name;
    const after = overload?.collapsed ? ", then collapses" : "";
    const leader = end === undefined
      ? ""
      : `<path class="leader" d="M${at(end.left + 6)} ${at(end.top)}L${LABEL_LEFT - 12} ${
        at(top)
      }"/>`;
    return `<g class="h${style.hue}">${leader}<path class="line"${dashes(style)} d="M${
      LABEL_LEFT - 8
    } ${at(top)}h26"/><path class="mark" d="${
      markerPath(style.marker, LABEL_LEFT + 5, top)
    }"/></g>` +
      `<text class="name" x="${LABEL_LEFT + 26}" y="${at(top + 4)}">${escapeMarkup(short)}</text>` +
      `<text class="tick" x="${LABEL_LEFT + 26}" y="${at(top + 19)}">${
        escapeMarkup(formatEstimate(limit) + after)
      }</text>`;
  });
}

/**
 * The style of our pictures. Colours follow the viewer's colour scheme. The background is our own: the
 * page's may be any colour.
 */
export function pictureStyle(): string {
  const hues = (shade: "light" | "dark") =>
    HUES.map((hue, i) => `.h${i}{--hue:${hue[shade]}}`).join("");
  return `svg{font-family:ui-sans-serif,system-ui,sans-serif;font-size:13px;` +
    `--ground:#fbfbf9;--ink:#1d252c;--faint:#5b6770;--rule:#e2e4e0;--edge:#c9cdca}` +
    `${hues("light")}.ground{fill:var(--ground);stroke:var(--edge)}` +
    `.title{font-size:17px;font-weight:600}text{fill:var(--ink)}` +
    `.small,.tick{fill:var(--faint);font-size:12px}` +
    `.tick{font-family:ui-monospace,SFMono-Regular,Menlo,monospace;font-size:11px}` +
    `.name{font-weight:600}.grid{stroke:var(--rule);fill:none}.frame{stroke:var(--faint);fill:none}` +
    `.diagonal{stroke:var(--faint);stroke-dasharray:1 4;stroke-linecap:round;stroke-width:1.5}` +
    `.line{stroke:var(--hue);fill:none;stroke-width:2;stroke-linejoin:round}` +
    `.mark{stroke:var(--hue);fill:var(--ground);stroke-width:1.5}` +
    `.band{fill:var(--hue);opacity:.28}.leader{stroke:var(--hue);fill:none;opacity:.45}` +
    `@media(prefers-color-scheme:dark){svg{--ground:#12171c;--ink:#e8edf1;--faint:#9aa7b1;` +
    `--rule:#252d34;--edge:#333d46}${hues("dark")}}`;
}
