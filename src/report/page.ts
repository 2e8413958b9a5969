/** A report as one HTML file, which can be opened from a disk without a network. */
import { createHash } from "node:crypto";
import { embeddedJson, escapeMarkup } from "../text/escape.ts";
import { formatByteRate, formatCount, formatSeconds } from "../text/units.ts";
import { makeLogScale } from "./log_scale.ts";
import { makeCurveChart } from "./page_curve.ts";
import { type PageData, pageData } from "./page_data.ts";
import { type PageFiles, readPageFiles } from "./page_files.ts";
import { mapPanel } from "./page_map.ts";
import { runPage } from "./page_main.ts";
import { PAGE_STYLE } from "./page_style.ts";
import { sortTables, table } from "./page_table.ts";
import { makeTimeChart } from "./page_time.ts";
import { formatMessageSize, type Results } from "./report.ts";
import type { ReaderStyle } from "./styles.ts";
import { markerPath } from "./svg.ts";
import {
  LATENCY_HEAD,
  LATENCY_METHOD,
  latencyRows,
  notesOf,
  READER_HEAD,
  readerCells,
  SENDER_HEAD,
  senderCells,
} from "./table.ts";
import { formatEstimate } from "./text_curve.ts";

/**
 * Resolves to a function that makes a page from results. Rejects with an Error of one line where
 * uPlot cannot be read. Call it before a measurement, so that it fails early.
 */
export async function preparePage(): Promise<(results: Results) => string> {
  const files = await readPageFiles();
  return (results) => compose(results, files);
}

/** A panel as markup; empty where the results have nothing for it. */
type Panel = (results: Results, data: PageData) => string;

/** In the order of the page. */
const PANELS: readonly Panel[] = [
  curvePanel,
  mapPanel,
  figuresPanel,
  timePanel,
  measuredWithPanel,
];

function compose(results: Results, uplot: PageFiles): string {
  const { title, caveats } = results;
  const data = pageData(results);
  const program =
    `(${runPage})({ uPlot, scale: (${makeLogScale})(), makeCurveChart: ${makeCurveChart},
    makeTimeChart: ${makeTimeChart}, sortTables: ${sortTables} });`;
  const scripts = [uplot.script, program];
  for (const script of scripts) {
    if (/<\/script|<!--/i.test(script)) {
      throw new Error("a script of the page contains markup that would end its element");
    }
  }
  // Whatever the data contains, the browser runs only these two scripts, and fetches nothing.
  const policy = `default-src 'none'; style-src 'unsafe-inline'; script-src ${
    scripts.map((script) => `'sha256-${createHash("sha256").update(script).digest("base64")}'`)
      .join(" ")
  }; base-uri 'none'; form-action 'none'`;
  const text = escapeMarkup;
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="${policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>${text(title)}</title>
<style>${uplot.style}</style>
<style>${PAGE_STYLE}</style>
</head>
<body>
<main>
<header>
<p class="mark"><svg viewBox="0 0 30 12" fill="none" stroke="currentColor" stroke-width="2" aria-hidden="true"><path d="M1 11 13 2h16"/></svg>speedlimit</p>
<h1>${text(title)}</h1>
<p class="lede">${text(summary(results))}</p>
${list("caveats", caveats)}
</header>
${PANELS.map((panel) => panel(results, data)).join("\n")}
</main>
<script type="application/json" id="data">${embeddedJson(data)}</script>
${scripts.map((script) => `<script>${script}</script>`).join("\n")}
</body>
</html>
`;
}

/** The results in one to three sentences. */
function summary({ readers, map }: Results): string {
  const [only] = readers;
  if (map !== undefined) return `${map.message}.`;
  if (only === undefined) return "";
  if (readers.length > 1) {
    const found = readers.filter(({ limit }) => limit !== null && !limit.atLeast)
      .toSorted((a, b) => a.limit!.middle - b.limit!.middle);
    const sizes = new Set(readers.map((reader) => reader.size));
    const of = ({ name, size, limit }: typeof only) => {
      const messages = sizes.size < 2 ? "" : `, ${formatMessageSize(size)} messages`;
      return `${name} (${formatEstimate(limit)}${messages})`;
    };
    // Where a limit was not reached, it is unknown which reader is the fastest.
    const unlimited = names(readers.filter(({ limit }) => limit?.atLeast));
    const collapsing = names(readers.filter(({ overload }) => overload?.collapsed));
    return [
      ...(found.length < 2 ? [] : [`Limits from ${of(found[0]!)} to ${of(found.at(-1)!)}.`]),
      ...(unlimited === ""
        ? []
        : [`The speed limit of these readers was not reached: ${unlimited}.`]),
      ...(collapsing === "" ? [] : [`These readers collapse under overload: ${collapsing}.`]),
    ].join(" ");
  }
  const { limit, overload, recovery, size, note } = only;
  if (limit === null) return `No limit was found${note === undefined ? "" : `: ${note}`}.`;
  const messages = formatCount(Math.round(limit.lower / size));
  return [
    limit.atLeast
      ? `The speed limit was not reached; it is ${formatEstimate(limit)} ` +
        `(${messages} messages a second).`
      : `The speed limit is ${formatEstimate(limit)} (${messages} messages a second).`,
    ...(overload === null ? [] : [
      `Offered twice that rate, the reader drains ${formatByteRate(overload.drained)}${
        overload.collapsed ? ": it collapses" : ""
      }.`,
    ]),
    ...(recovery === null ? [] : [
      recovery.recovered
        ? `Offered half its limit afterwards, it clears its backlog in ${
          formatSeconds(recovery.seconds)
        }.`
        : "Offered half its limit afterwards, it does not recover.",
    ]),
  ].join(" ");
}

const names = (readers: Results["readers"]) =>
  [...new Set(readers.map(({ name }) => name))].join(", ");

/** `2026-11-20 12:00 UTC` */
const when = (date: string) => date.replace(/^(\S+)T(\d+:\d+).*Z$/, "$1 $2 UTC");

const list = (name: string, lines: readonly string[]) =>
  lines.length === 0
    ? ""
    : `<ul class="${name}">${lines.map((line) => `<li>${escapeMarkup(line)}</li>`).join("")}</ul>`;

function curvePanel(_results: Results, { readers, sizes }: PageData): string {
  if (readers.length === 0) return "";
  const choice = sizes.length < 2
    ? ""
    : `<fieldset id="sizes" aria-label="Message size">${
      sizes.map((size, i) =>
        `<label><input type="radio" name="size" value="${escapeMarkup(size)}"${
          i === 0 ? " checked" : ""
        }>${escapeMarkup(size)}</label>`
      ).join("")
    }</fieldset>`;
  return `<section class="panel" aria-labelledby="drained">
<div class="head"><h2 id="drained">Drained over offered rate</h2>${choice}
<div class="tools"><button type="button" id="zoom-out" aria-label="Zoom out">−</button><button type="button" id="zoom-in" aria-label="Zoom in">+</button><button type="button" id="zoom-reset">Reset</button></div></div>
<div class="bench">
<div>
<p class="axis">vertical: drained rate; dotted line: everything offered is drained; coloured bands: speed limits</p>
<div id="curve" class="plot" tabindex="0" role="application" aria-describedby="readout" aria-label="Curves: left and right arrow keys move along a curve, up and down arrow keys change the reader, plus and minus zoom, 0 shows everything"></div>
<p class="axis below">horizontal: offered rate</p>
<output id="readout" class="readout">Point at a curve to see its values, drag to zoom. Keyboard: arrow keys move, + and − zoom, 0 shows everything.</output>
</div>
<fieldset id="readers"><legend><span>Readers and their speed limits</span>${
    readers.length < 2
      ? ""
      : '<span><button type="button" id="all">all</button> <button type="button" id="none">none</button></span>'
  }</legend>${
    readers.map((reader, i) =>
      `<label style="--hue: var(--h${reader.style.hue})"><input type="checkbox" data-reader="${i}" checked>${
        key(reader.style)
      }<span class="name">${escapeMarkup(reader.name)}</span><span class="figure"><b>${
        escapeMarkup(reader.limit?.text ?? "no limit found")
      }</b></span></label>`
    ).join("")
  }</fieldset>
</div>
</section>`;
}

/** A small sample of a reader's line and marker. */
function key({ dash, marker }: ReaderStyle): string {
  const dashes = dash.length === 0 ? "" : ` stroke-dasharray="${dash.join(" ")}"`;
  return `<svg class="key" viewBox="0 0 40 14" aria-hidden="true"><path class="line"${dashes} d="M0 7h40"/>` +
    `<path class="point" d="${markerPath(marker, 20, 7, 4)}"/></svg>`;
}

function figuresPanel({ readers, senders }: Results): string {
  if (readers.length + senders.length === 0) return "";
  const latencies = readers.flatMap(latencyRows);
  const notes = [
    ...notesOf([...readers, ...senders]),
    ...(latencies.length === 0 ? [] : [LATENCY_METHOD]),
  ];
  return `<section class="panel" aria-labelledby="figures">
<div class="head"><h2 id="figures">Figures</h2></div>
${readers.length === 0 ? "" : table("Readers", READER_HEAD, readers.map(readerCells))}
${senders.length === 0 ? "" : table("Senders", SENDER_HEAD, senders.map(senderCells))}
${latencies.length === 0 ? "" : table("Latency", LATENCY_HEAD, latencies)}
${list("notes", notes)}
</section>`;
}

function timePanel(_results: Results, { readers }: PageData): string {
  const withSeries = readers.flatMap((reader, i) =>
    reader.series === undefined ? [] : [{ reader, i }]
  );
  if (withSeries.length === 0) return "";
  const line = (kind: string, dash: string) =>
    `<svg viewBox="0 0 26 8" aria-hidden="true"><path class="${kind}"${
      dash === "" ? "" : ` stroke-dasharray="${dash}"`
    } d="M0 4h26"/></svg>`;
  const trial = (which: string, title: string) =>
    `<div><h3>${title}: <span id="${which}-rate"></span></h3><div id="${which}" class="plot" tabindex="0" role="application" aria-describedby="${which}-readout" aria-label="A trial ${title.toLowerCase()} over time: left and right arrow keys show its values"></div><output id="${which}-readout" class="readout"></output></div>`;
  return `<section class="panel" id="time" aria-labelledby="over-time">
<div class="head"><h2 id="over-time">Over time</h2><select id="time-reader" aria-label="Reader">${
    withSeries.map(({ reader, i }) =>
      `<option value="${i}">${escapeMarkup(`${reader.name}, ${reader.size}`)}</option>`
    ).join("")
  }</select></div>
<ul class="keys"><li>${line("other", "2 3")}offered</li><li>${
    line("own", "")
  }drained (upper chart)</li><li>${line("own", "")}backlog (lower chart)</li><li>${
    line("other", "8 4")
  }window</li></ul>
<div class="pair">${trial("below", "Below the limit")}${trial("above", "Above the limit")}</div>
</section>`;
}

function measuredWithPanel({ machine, facts, date, command }: Results): string {
  const text = escapeMarkup;
  return `<section class="panel" aria-labelledby="with">
<div class="head"><h2 id="with">Measured with</h2></div>
<dl>${
    Object.entries({ ...machine, ...facts, measured: when(date) }).map((
      [what, value],
    ) => `<div><dt>${text(what)}</dt><dd>${text(value)}</dd></div>`).join("")
  }</dl>
<h3>Command to repeat the measurement</h3>
<div class="again"><pre id="command">${
    text(command)
  }</pre><button id="copy" type="button">Copy</button><span class="status" id="copied" role="status"></span></div>
</section>`;
}
