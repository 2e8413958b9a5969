/** The map of a reader as an SVG picture: base rates to the right, bursts upwards. */
import type { MapRate, MapResult } from "../burst/map_result.ts";
import { escapeMarkup } from "../text/escape.ts";
import { formatByteRate } from "../text/units.ts";
import { formatShort, positionOf, ticksOf } from "./log_scale.ts";
import { pictureStyle } from "./svg.ts";

const WIDTH = 720;
const HEIGHT = 460;
const PLOT = { left: 74, right: 690, top: 74, bottom: 380 };

/** The picture, as the content of a file or within a page; `caption`: the machine that it was measured on. */
export function formatMapSvg(map: MapResult, caption: string): string {
  const { rates } = map;
  const bursts = rates.flatMap(({ chances }) => chances.map(({ burst }) => burst));
  const view = {
    left: rates[0]!.rate / 1.3,
    right: rates.at(-1)!.rate * 1.3,
    bottom: Math.min(...bursts) / 1.5,
    top: Math.max(...bursts) * 1.5,
  };
  const x = (rate: number) =>
    PLOT.left + positionOf(rate, view.left, view.right) * (PLOT.right - PLOT.left);
  const y = (burst: number) =>
    PLOT.bottom -
    positionOf(Math.max(view.bottom, burst), view.bottom, view.top) * (PLOT.bottom - PLOT.top);
  const highest = ({ chances }: MapRate) => chances.at(-1)!.burst;
  const area = (name: string, from: (rate: MapRate) => number, to: (rate: MapRate) => number) => {
    const up = rates.map((rate) => `${at(x(rate.rate))} ${at(from(rate))}`);
    const down = rates.toReversed().map((rate) => `${at(x(rate.rate))} ${at(to(rate))}`);
    return `<path class="${name}" d="M${[...up, ...down].join("L")}z"/>`;
  };
  const lower = (rate: MapRate) => y(rate.tolerance.lower);
  const upper = (rate: MapRate) => y(rate.tolerance.upper ?? highest(rate));
  const title = `The bursts that ${map.reader} survives`;
  const parts = [
    `<rect class="ground" x=".5" y=".5" width="${WIDTH - 1}" height="${HEIGHT - 1}" rx="8"/>`,
    `<text class="title" x="${PLOT.left}" y="28">${escapeMarkup(short(title))}</text>`,
    ...legend(),
    ...ticksOf(view.bottom, view.top, 8).map((tick) =>
      `<path class="grid" d="M${PLOT.left} ${at(y(tick))}H${PLOT.right}"/>` +
      label(PLOT.left - 8, y(tick) + 4, "end", formatShort(tick, "B"))
    ),
    area("back", () => PLOT.bottom, lower),
    area("between", lower, upper),
    area("gone", upper, (rate) => rate.tolerance.upper === null ? upper(rate) : PLOT.top),
    ...rates.flatMap(({ rate, chances }) => [
      label(x(rate), PLOT.bottom + 18, "middle", formatByteRate(rate)),
      ...chances.map(({ burst, tried, survived }) => mark(x(rate), y(burst), survived / tried)),
    ]),
    `<path class="frame" d="M${PLOT.left} ${PLOT.top}V${PLOT.bottom}H${PLOT.right}"/>`,
    label(PLOT.right, PLOT.bottom + 36, "end", "base rate"),
    label(PLOT.left, PLOT.top - 10, "end", "burst"),
    `<text class="tick" x="${PLOT.left}" y="${HEIGHT - 16}">${escapeMarkup(caption)}</text>`,
  ];
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${HEIGHT}" width="${WIDTH}" ` +
    `height="${HEIGHT}" class="h2" role="img" aria-labelledby="map-title map-text">\n` +
    `<title id="map-title">${escapeMarkup(title)}</title>\n` +
    `<desc id="map-text">${escapeMarkup(map.message)}</desc>\n` +
    `<style>${pictureStyle()}${STYLE}</style>\n${parts.join("\n")}\n</svg>\n`;
}

const at = (pixels: number) => String(Math.round(pixels * 10) / 10);

const label = (left: number, top: number, anchor: string, text: string) =>
  `<text class="tick" text-anchor="${anchor}" x="${at(left)}" y="${at(top)}">${
    escapeMarkup(text)
  }</text>`;

/** Characters of the title that fit. */
const TITLE_LENGTH = 58;
const short = (text: string) =>
  text.length > TITLE_LENGTH ? `${text.slice(0, TITLE_LENGTH - 1)}…` : text;

/** A try: it came back, it did not, or sometimes. Distinguished by shape as well. */
function mark(left: number, top: number, survived: number): string {
  if (survived === 0) {
    return `<path class="cross" d="M${at(left - 4)} ${at(top - 4)}l8 8m0 -8l-8 8"/>`;
  }
  const open = survived < 1 ? ' class="open"' : ' class="dot"';
  return `<circle${open} cx="${at(left)}" cy="${at(top)}" r="3.5"/>`;
}

function legend(): string[] {
  const items = ["comes back", "sometimes", "does not come back"];
  return items.map((text, i) => {
    const left = PLOT.left + 10 + i * 130;
    return mark(left, 46, 1 - i / 2) +
      `<text class="small" x="${left + 10}" y="50">${text}</text>`;
  });
}

const STYLE = `.back{fill:var(--hue);opacity:.16}.between{fill:var(--hue);opacity:.07}` +
  `.gone{fill:var(--faint);opacity:.16}.dot{fill:var(--hue)}` +
  `.open{fill:var(--ground);stroke:var(--hue);stroke-width:1.5}` +
  `.cross{stroke:var(--ink);stroke-width:1.6;fill:none}`;
