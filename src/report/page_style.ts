/** The style sheet of a page: for light and dark screens, any width, and paper. */
import { HUES } from "./styles.ts";

const hues = (shade: "light" | "dark") => HUES.map((hue, i) => `--h${i}: ${hue[shade]};`).join(" ");

const LIGHT = `--ground: #eff0ec; --panel: #fbfbf9; --ink: #1d252c; --faint: #56626b;
  --rule: #e4e6e2; --edge: #c6cbc8; --focus: #0b62a4; ${hues("light")}`;
const DARK = `--ground: #0b0f12; --panel: #12171c; --ink: #e8edf1; --faint: #9aa7b1;
  --rule: #222a31; --edge: #36414a; --focus: #6cb6f5; ${hues("dark")}`;

export const PAGE_STYLE = `
:root { color-scheme: light dark; ${LIGHT} }
@media (prefers-color-scheme: dark) { :root { ${DARK} } }
:root.paper { color-scheme: light; ${LIGHT} --ground: #fff; --panel: #fff; }
* { box-sizing: border-box; }
body { margin: 0; background: var(--ground); color: var(--ink);
  font: 15px/1.5 ui-sans-serif, system-ui, -apple-system, "Segoe UI", sans-serif; }
main { max-width: 1180px; margin: 0 auto; padding: 28px 20px 48px; }
header { margin: 0 2px 22px; }
.mark { margin: 0 0 10px; font: 600 12px/1 ui-monospace, SFMono-Regular, Menlo, monospace;
  letter-spacing: .08em; color: var(--faint); }
.mark svg { width: 30px; height: 12px; vertical-align: -1px; margin-right: 8px; }
h1 { margin: 0; font-size: 27px; line-height: 1.2; letter-spacing: -.015em; overflow-wrap: anywhere; }
.lede { margin: 10px 0 0; max-width: 46em; font-size: 16.5px; }
.caveats { margin: 12px 0 0; padding: 8px 14px 8px 30px; border-left: 3px solid var(--h1);
  background: var(--panel); overflow-wrap: anywhere; }
.panel { background: var(--panel); border: 1px solid var(--edge); border-radius: 6px;
  margin: 0 0 18px; padding: 16px 18px 14px; }
.head { display: flex; flex-wrap: wrap; gap: 8px 20px; align-items: center; margin: 0 0 10px; }
h2 { margin: 0; font-size: 16px; flex: 1 1 auto; }
h3 { margin: 0 0 4px; font-size: 13.5px; font-weight: 600; }
button, select { font: inherit; font-size: 13px; color: inherit; background: transparent;
  border: 1px solid var(--edge); border-radius: 4px; padding: 4px 10px; cursor: pointer; }
select { background: var(--panel); max-width: 100%; }
button:hover, select:hover { border-color: var(--faint); }
:focus-visible { outline: 2px solid var(--focus); outline-offset: 2px; }
.tools { display: flex; gap: 6px; }
.tools button { min-width: 34px; min-height: 32px; }
#sizes { display: flex; border: 0; margin: 0; padding: 0; }
#sizes label { position: relative; border: 1px solid var(--edge); margin-left: -1px; padding: 4px 10px;
  font-size: 13px; cursor: pointer; font-variant-numeric: tabular-nums; }
#sizes label:first-of-type { border-radius: 4px 0 0 4px; }
#sizes label:last-of-type { border-radius: 0 4px 4px 0; }
#sizes input { position: absolute; opacity: 0; inset: 0; margin: 0; cursor: pointer; }
#sizes label:has(:checked) { background: var(--ink); color: var(--panel); border-color: var(--ink); }
#sizes label:has(:focus-visible) { outline: 2px solid var(--focus); outline-offset: 2px; z-index: 1; }
.bench { display: grid; grid-template-columns: minmax(0, 1fr) 268px; gap: 8px 22px; }
.plot { min-width: 0; border-radius: 4px; }
#curve { min-height: 300px; cursor: crosshair; }
.axis { margin: 0; font-size: 12px; color: var(--faint); }
.axis.below { text-align: right; padding-right: 14px; }
#readers { border: 0; margin: 0; padding: 0; min-width: 0; }
#readers legend { padding: 0; width: 100%; display: flex; justify-content: space-between;
  font-size: 12px; color: var(--faint); align-items: center; }
#readers legend button { padding: 1px 8px; font-size: 12px; }
#readers label { display: grid; grid-template-columns: 18px 40px minmax(0, 1fr); gap: 0 8px;
  align-items: center; padding: 6px 0; border-top: 1px solid var(--rule); cursor: pointer; }
#readers label[hidden] { display: none; }
#readers legend + label { margin-top: 6px; }
#readers input { margin: 0; width: 16px; height: 16px; accent-color: var(--hue); }
#readers .key { width: 40px; height: 14px; }
.key .line { stroke: var(--hue); stroke-width: 2; fill: none; }
.key .point { stroke: var(--hue); stroke-width: 1.5; fill: var(--panel); }
.name { font-weight: 600; font-size: 14px; line-height: 1.3; overflow-wrap: anywhere; }
.figure { grid-column: 3; font: 12px/1.4 ui-monospace, SFMono-Regular, Menlo, monospace;
  color: var(--faint); }
.figure b { color: var(--ink); font-weight: 600; }
label:has(input:not(:checked)) .name, label:has(input:not(:checked)) .key { opacity: .45; }
.readout { display: block; min-height: 3em; margin: 8px 0 0; padding: 7px 12px; background: var(--ground);
  border-radius: 4px; font: 12.5px/1.5 ui-monospace, SFMono-Regular, Menlo, monospace;
  overflow-wrap: anywhere; }
.spot { position: absolute; left: -8px; top: -8px; width: 16px; height: 16px; border: 2px solid;
  border-radius: 50%; pointer-events: none; }
.u-select { background: color-mix(in srgb, var(--focus) 16%, transparent); }
.uplot .u-cursor-x, .uplot .u-cursor-y { border-color: var(--faint); }
.scroll { overflow-x: auto; margin: 0 -18px; padding: 0 18px; }
table { border-collapse: collapse; width: 100%; font-size: 14px; }
th, td { text-align: left; padding: 7px 16px 7px 0; border-top: 1px solid var(--rule);
  vertical-align: top; white-space: nowrap; font-variant-numeric: tabular-nums; }
thead th { border-top: 0; }
tbody th { font-weight: 600; white-space: normal; overflow-wrap: anywhere; min-width: 9em; }
th button { border: 0; padding: 2px 0; font-weight: 600; color: var(--faint); }
th button::after { content: "\\2195"; opacity: .45; margin-left: 5px; }
th[aria-sort=ascending] button::after { content: "\\2191"; opacity: 1; }
th[aria-sort=descending] button::after { content: "\\2193"; opacity: 1; }
th[aria-sort] button { color: var(--ink); }
table + table, .scroll + .scroll { margin-top: 18px; }
.notes { margin: 12px 0 0; padding-left: 18px; color: var(--faint); font-size: 13.5px;
  overflow-wrap: anywhere; }
.pair { display: grid; grid-template-columns: repeat(2, minmax(0, 1fr)); gap: 8px 26px; }
.keys { display: flex; flex-wrap: wrap; gap: 4px 18px; margin: 0 0 12px; padding: 0; list-style: none;
  font-size: 12.5px; color: var(--faint); }
.keys svg { width: 26px; height: 8px; vertical-align: 1px; margin-right: 6px; stroke-width: 2; }
.keys .own { stroke: var(--hue); }
.keys .other { stroke: var(--ink); stroke-width: 1.5; }
dl { columns: 2; column-gap: 36px; margin: 0 0 14px; font-size: 14px; }
dl div { display: grid; grid-template-columns: 11em minmax(0, 1fr); padding: 3px 0; break-inside: avoid; }
dt { color: var(--faint); }
dd { margin: 0; font-variant-numeric: tabular-nums; overflow-wrap: anywhere; }
.again { display: flex; flex-wrap: wrap; gap: 8px; align-items: flex-start; }
pre { flex: 1 1 260px; margin: 0; padding: 8px 12px; background: var(--ground); border-radius: 4px;
  font: 13px/1.5 ui-monospace, SFMono-Regular, Menlo, monospace; white-space: pre-wrap;
  overflow-wrap: anywhere; }
.status { font-size: 13px; color: var(--faint); align-self: center; }
@media (max-width: 860px) {
  .bench, .pair { grid-template-columns: minmax(0, 1fr); }
}
@media (max-width: 560px) {
  main { padding: 18px 10px 32px; }
  .panel { padding: 14px 12px 12px; }
  .scroll { margin: 0 -12px; padding: 0 12px; }
  h1 { font-size: 22px; }
  .lede { font-size: 15.5px; }
  .tools button { min-width: 44px; min-height: 40px; }
  #sizes label { padding: 8px 12px; }
  #readers label { padding: 9px 0; }
  dl { columns: 1; }
}
@media print {
  body { font-size: 12px; }
  main { max-width: none; padding: 0; }
  .panel { break-inside: avoid; border-color: #bbb; }
  .tools, #sizes, #readers legend button, #copy, .readout, th button::after, .hint { display: none; }
  .scroll { overflow: visible; }
  th, td { white-space: normal; }
  canvas { max-width: 100%; }
}
@media (prefers-reduced-motion: no-preference) {
  .name, .key { transition: opacity .12s; }
}
`;
