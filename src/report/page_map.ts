/** The panel of a page with the map of a reader's bursts. */
import { escapeMarkup } from "../text/escape.ts";
import { formatMapSvg } from "./map_svg.ts";
import { MAP_HEAD, mapCells, mapNotes } from "./map_table.ts";
import { table } from "./page_table.ts";
import { captionOf, type Results } from "./report.ts";

/** Empty where the results have no map. */
export function mapPanel(results: Results): string {
  const { map } = results;
  if (map === undefined) return "";
  const notes = mapNotes(map);
  return `<section class="panel" aria-labelledby="map">
<div class="head"><h2 id="map">Bursts on top of a base rate</h2></div>
${formatMapSvg(map, captionOf(results))}
${table("Base rates", MAP_HEAD, map.rates.map(mapCells))}
${
    notes.length === 0
      ? ""
      : `<ul class="notes">${notes.map((note) => `<li>${escapeMarkup(note)}</li>`).join("")}</ul>`
  }
</section>`;
}
