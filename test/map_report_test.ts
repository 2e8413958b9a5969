/** A map as text, as a picture and as a page, made of figures of the test's own. */
import { after, describe, test } from "node:test";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { assert, assertEquals, assertMatch, assertStringIncludes, assertThrows } from "#std/assert";
import { MAP_SCHEMA, type MapRate, type MapResult } from "../src/burst/map_result.ts";
import { environment } from "../src/kernel/environment.ts";
import { formatMapSvg } from "../src/report/map_svg.ts";
import { formatMap } from "../src/report/map_table.ts";
import { preparePage } from "../src/report/page.ts";
import { fromMap, readResults } from "../src/report/report.ts";
import { run } from "./process.ts";

const folder = mkdtempSync(join(tmpdir(), "speedlimit-map-"));
after(() => rmSync(folder, { recursive: true }));

const HOSTILE = `</script><img src=x onerror=alert(1)>\x1b[31m"'&`;

/** Tries at bursts, as [burst, survived, tried]. */
function rateOf(rate: number, tries: readonly (readonly [number, number, number])[]): MapRate {
  const chances = tries.map(([burst, survived, tried]) => ({
    ...{ burst, survived, tried, lower: 0.1, upper: 0.9 },
  }));
  const gone = chances.find(({ survived }) => survived === 0);
  const lower = chances.filter(({ survived, tried }) => survived === tried).at(-1)?.burst ?? 0;
  return {
    ...{ rate, share: rate / 20e6, chances, cells: [], collapsedRate: gone ? 3e6 : null },
    state: gone === undefined ? "stable" : "vulnerable",
    tolerance: { lower, upper: gone?.burst ?? null },
  };
}

const MAP: MapResult = {
  ...{ schema: MAP_SCHEMA, reader: `reader ${HOSTILE}`, limit: 20e6, outcome: "vulnerable" },
  message: "at 10.0 MB/s (50 % of its limit), it survives a burst of 1.00 MB",
  rates: [
    rateOf(2e6, [[1e6, 2, 2], [16e6, 2, 2]]),
    rateOf(10e6, [[1e6, 2, 2], [1.1e6, 1, 2], [1.2e6, 0, 2]]),
  ],
  hysteresis: { collapsedAt: 10e6, returns: 2.5e6, seconds: 1.5, staysAt: 5e6 },
  ...{ absorbs: 2e6, largestBurst: 64e6, confidence: 0.95, messageSize: 1000 },
  ...{ interrupted: false, seconds: 60, environment: environment() },
};

describe("a map", () => {
  test("as text has a row for each rate, a picture and what else is known", () => {
    const text = formatMap(MAP);
    assertMatch(text, /^2\.00 MB\/s +10 % +16\.0 MB +- +- +stable +0$/m);
    assertMatch(text, /^10\.0 MB\/s +50 % +1\.00 MB +1\.20 MB +3\.00 MB\/s +vulnerable +0$/m);
    assertMatch(text, /^16\.0 MB +\+ +x$/m);
    assertMatch(text, /^1\.00 MB +\+ +\+$/m);
    assertStringIncludes(text, "it comes back at 2.50 MB/s, after 1.50 s; not at 5.00 MB/s.");
    assertStringIncludes(text, "It took up to 2.00 MB faster than its limit");
  });

  test("as a picture has a mark for each try, and nothing of the reader's name as markup", () => {
    const svg = formatMapSvg(fromMap(MAP).map!, "a machine");
    // Three in the legend.
    assertEquals(svg.match(/class="dot"/g)?.length, 3 + 1);
    assertEquals(svg.match(/class="open"/g)?.length, 1 + 1);
    assertEquals(svg.match(/class="cross"/g)?.length, 1 + 1);
    assert(!svg.includes("<img") && !svg.includes("\x1b"), svg);
    assertStringIncludes(svg, "10.0 MB/s");
  });

  test("as a page has picture and table, and nothing of the reader's name as markup", async () => {
    const page = (await preparePage())(fromMap(MAP));
    assertStringIncludes(page, "Bursts on top of a base rate");
    assertStringIncludes(page, MAP.message);
    assert(!page.includes("<img") && !page.includes("\x1b"));
    assert(!page.includes('id="curve"') && !page.includes('id="figures"'));
  });
});

describe("report", () => {
  const saved = join(folder, "map.json");
  writeFileSync(saved, JSON.stringify(MAP));

  test("prints a saved map, and makes a page and a picture of it", async () => {
    const [html, svg] = [join(folder, "map.html"), join(folder, "map.svg")];
    const printed = await run(["bin/report.ts", saved]);
    assertEquals([printed.status, printed.stderr], [0, ""]);
    assertMatch(printed.stdout, /^2\.00 MB\/s +10 %/m);
    assertStringIncludes(printed.stdout, "repeat with: deno task map --limit 20000000B/s");
    assert(!printed.stdout.includes("\x1b"));
    const made = await run(["bin/report.ts", saved, "--html", html, "--svg", svg]);
    assertEquals(made.status, 0, made.stderr);
    assertStringIncludes(readFileSync(html, "utf8"), "<svg");
    assertMatch(readFileSync(svg, "utf8"), /^<svg xmlns=/);
  });

  test("refuses what has no rates", () => {
    const file = join(folder, "bad.json");
    writeFileSync(file, JSON.stringify({ schema: MAP_SCHEMA }));
    assertThrows(() => readResults(file), Error, "is not a result of map: it has no rates");
  });
});
