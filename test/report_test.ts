/** Reports without a browser: curves as text and pictures, escaping, comparing, and the command. */
import { after, describe, test } from "node:test";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { assert, assertEquals, assertMatch, assertStringIncludes } from "#std/assert";
import type { BenchResult } from "../src/report/bench_result.ts";
import { curveOf } from "../src/report/curve.ts";
import { embeddedJson, escapeMarkup } from "../src/text/escape.ts";
import { formatShort, ticksOf } from "../src/report/log_scale.ts";
import { preparePage } from "../src/report/page.ts";
import { fromBench, fromLimits, type ReaderReport } from "../src/report/report.ts";
import { formatSvg } from "../src/report/svg.ts";
import { formatTextCurve } from "../src/report/text_curve.ts";
import { MADE_READERS, madeFigures, madeLimit, madeResult } from "./bench_results.ts";
import { ROOT, run } from "./process.ts";

const folder = mkdtempSync(join(tmpdir(), "speedlimit-report-"));
after(() => rmSync(folder, { recursive: true }));

const HOSTILE = `</script><img src=x onerror=alert(1)>\x1b[31m"'&`;
const readers = (size = 13): ReaderReport[] =>
  fromBench(madeResult()).readers.filter((reader) => reader.size === size);

describe("a curve", () => {
  test("keeps to the diagonal, and collapses after the limit", () => {
    const { line } = curveOf(madeFigures(55e6, 1.6e6));
    for (const { offered, drained } of line.filter(({ offered }) => offered < 54.9e6)) {
      assertEquals(drained, offered);
    }
    const past = line.filter(({ offered }) => offered > 55.1e6);
    assert(past.length >= 3 && past.every(({ drained }) => drained < 3e6), JSON.stringify(past));
    const order = line.map(({ offered }) => offered);
    assertEquals(order, order.toSorted((a, b) => a - b));
  });

  test("of a reader that failed is empty", () => {
    assertEquals(curveOf({ limit: null, overload: null, trials: [] }), { points: [], line: [] });
  });
});

describe("an axis", () => {
  test("has as many round labels as there is room for", () => {
    assertEquals(ticksOf(1e6, 1e9, 4), [1e6, 1e7, 1e8, 1e9]);
    assertEquals(ticksOf(0.9e6, 12e6, 5), [1e6, 2e6, 5e6, 1e7]);
    assertEquals(ticksOf(50e6, 56e6, 4), [50e6, 52e6, 54e6, 56e6]);
    assert(ticksOf(1, 1e15, 4).length <= 4);
  });

  test("shows a quantity shortly", () => {
    assertEquals([5e5, 2e6, 1e9, 1000, 0, 0.25].map((value) => formatShort(value, "B/s")), [
      "500 kB/s",
      "2 MB/s",
      "1 GB/s",
      "1 kB/s",
      "0 B/s",
      "0.25 B/s",
    ]);
  });
});

describe("curves as text", () => {
  for (const width of [24, 40, 80, 120]) {
    test(`fit ${width} columns`, () => {
      const text = formatTextCurve(readers(), { width, color: false });
      const plot = text.split("\n\n")[0]!.split("\n");
      for (const line of plot) assert(line.length <= width, line);
      for (const letter of ["C", "c", "D", "d", "P", "p"]) assertStringIncludes(text, letter);
      assertMatch(text, /^ *offered$/m);
      assertMatch(text, /^P 52\.8-56\.2 MB\/s +python.* collapses$/m);
      // deno-lint-ignore no-control-regex
      assert(!/\x1b/.test(text), "it has colours");
    });
  }

  test("go down where a reader collapses", () => {
    const text = formatTextCurve(readers().filter(({ name }) => name === "python drain"), {
      width: 80,
      color: false,
    });
    const rows = text.split("\n").flatMap((line, i) => /[│┤].*P/.test(line) ? [i] : []);
    const deepest = text.split("\n")[rows.at(-1)!]!;
    assert(rows.at(-1)! - rows[0]! >= 8, text);
    assert(deepest.indexOf("P") > 40, text);
  });

  test("have colours where they are wanted, and no control characters of a name", () => {
    const { readers } = fromLimits([madeLimit(HOSTILE, 5e6)], "limit");
    const colored = formatTextCurve(readers, { width: 120, color: true });
    assertStringIncludes(colored, "\x1b[34mA\x1b[0m");
    assert(!formatTextCurve(readers, { width: 120, color: false }).includes("\x1b"));
    assert(!colored.includes("\x1b[31m"), "the name has its colour");
  });

  test("of one point, or none, are still there", () => {
    const one = { ...madeLimit("x", 5e6), limit: null, overload: null };
    for (const trials of [[], one.trials.slice(0, 1)]) {
      const { readers } = fromLimits([{ ...one, trials }], "limit");
      assertStringIncludes(formatTextCurve(readers, { width: 60, color: false }), "offered");
    }
  });
});

describe("a picture", () => {
  const svg = formatSvg(readers(), { title: "Limits <&>", caption: "Example CPU" });

  test("is well-formed, with a title and a description", () => {
    const open: string[] = [];
    for (const [, end, name, own] of svg.matchAll(/<(\/?)([a-zA-Z]+)[^>]*?(\/?)>/g)) {
      if (end !== "") assertEquals(open.pop(), name);
      else if (own === "") open.push(name!);
    }
    assertEquals(open, []);
    assertStringIncludes(svg, '<title id="t">Limits &lt;&amp;&gt;</title>');
    assertMatch(svg, /<desc id="d">.*python drain: 52\.8-56\.2 MB\/s, collapses/);
    assertStringIncludes(svg, "prefers-color-scheme:dark");
    assert(!/NaN|Infinity|undefined/.test(svg), "a number is missing");
  });

  test("tells readers apart without colours", () => {
    assertEquals(svg.match(/class="name"/g)!.length, 6);
    assertStringIncludes(svg, 'stroke-dasharray="6 4"');
  });

  test("is the same each time, whatever the names", () => {
    const { readers } = fromLimits([madeLimit(HOSTILE, 5e6)], "limit");
    const options = { title: HOSTILE, caption: HOSTILE };
    assertEquals(formatSvg(readers, options), formatSvg(readers, options));
    assert(!formatSvg(readers, options).includes("<img"), "the name is no text");
  });
});

describe("text in a page", () => {
  test("is escaped", () => {
    assertEquals(escapeMarkup(`<a b="c" d='e'>&`), "&lt;a b=&quot;c&quot; d=&#39;e&#39;&gt;&amp;");
    assertEquals(escapeMarkup("a\x00\x1bb\ud800"), "a\ufffd\ufffdb\ufffd");
  });

  test("ends no script as JSON, and comes back", () => {
    const value = { name: `${HOSTILE}<!--\u2028]]>` };
    const text = embeddedJson(value);
    assert(!/[<>&\u2028]/.test(text), text);
    assertEquals(JSON.parse(text), value);
  });

  test("is small enough with thirty readers and their series", async () => {
    const many = ["c", "deno", "bun", "node", "python"].flatMap((who) =>
      (["naive", "drain"] as const).flatMap((mode) =>
        [13, 1024, 65536].map((size, i) => ({ who, mode, size, limits: [(1 + i) * 1e8] }))
      )
    );
    const formatPage = await preparePage();
    const page = formatPage(fromBench(madeResult(many)));
    assert(page.length < 500_000, `${page.length} characters`);
    assert(!/(src|href)=/.test(page.replaceAll(/<script[\s\S]*?<\/script>/g, "")), "it has a link");
  });
});

describe("limit --html", () => {
  test("writes a page, and prints the curves after the table", async () => {
    const html = join(folder, "limit.html");
    const { tasks } = JSON.parse(readFileSync(join(ROOT, "deno.json"), "utf8"));
    const permissions = tasks.limit.match(/--allow-\S+/g);
    const args = ["--max-rate", "600kB/s", "--html", html];
    const { status, stdout, stderr } = await run(["bin/limit.ts", ...args], {
      permissions,
      timeoutMs: 150_000,
    });
    // While others have the cores, a search may find no limit, which exits with 1.
    assert(status === 0 || status === 1, stderr);
    assertMatch(stdout, /^A (above|[\d.]+-[\d.]+|- ) .*client --mode naive/m);
    const page = readFileSync(html, "utf8");
    assertMatch(page, /uPlot=function/);
    assertStringIncludes(page, '<pre id="command">deno task limit --max-rate 600kB/s</pre>');
  });
});

const file = (name: string, content: unknown): string => {
  const path = join(folder, name);
  writeFileSync(path, typeof content === "string" ? content : JSON.stringify(content));
  return path;
};
const report = (...args: string[]) => run(["bin/report.ts", ...args]);

describe("the command report", () => {
  const made = file("made.json", madeResult());

  test("prints the table and a plot for each size", async () => {
    const { status, stdout, stderr } = await report(made, "--width", "60");
    assertEquals([status, stderr], [0, ""]);
    assertMatch(stdout, /^python drain +13 B +52\.8-56\.2 MB\/s .*collapsed +does not recover$/m);
    assertMatch(stdout, /^control: C to C +64 KiB +7\.20-7\.40 GB\/s/m);
    assertMatch(stdout, /^13 B messages:$/m);
    assertMatch(stdout, /^64 KiB messages:$/m);
    assertStringIncludes(stdout, "repeat with: deno task bench --runs 3");
  });

  test("tells the latency at each rate, beyond the limit too", async () => {
    const { stdout } = await report(made);
    assertMatch(stdout, /^deno drain +64 KiB +4\.73 GB\/s +95 % +2\.68 ms /m);
    assertMatch(stdout, /^deno drain +64 KiB +5\.23 GB\/s +105 % +25\.0 ms /m);
    assertStringIncludes(stdout, "corrected for coordinated omission");
  });

  test("writes a page and a picture, with the permissions of its task", async () => {
    const [html, svg] = [join(folder, "a.html"), join(folder, "a.svg")];
    const permissions = ["--allow-read", "--allow-write", "--allow-env", "--allow-sys=uid"];
    const ran = await run(["bin/report.ts", made, "--html", html, "--svg", svg], { permissions });
    assertEquals([ran.status, ran.stdout], [0, ""], ran.stderr);
    assertStringIncludes(readFileSync(html, "utf8"), "<!doctype html>");
    assertStringIncludes(readFileSync(svg, "utf8"), "<svg ");
  });

  test("reads what limit --json printed, for one reader and for more", async () => {
    const one = file("one.json", madeLimit("python3 x.py", 5e6));
    const results = [madeLimit("a", 5e6), madeLimit("b", 50e6, 1e6)];
    const two = file("two.json", { schema: "speedlimit/limits@2", results });
    const first = await report(one);
    assertEquals([first.status, first.stderr], [0, ""]);
    assertStringIncludes(first.stdout, "repeat with: deno task limit -- python3 x.py");
    assertMatch((await report(two)).stdout, /^B 49.* b {2}collapses$/m);
  });

  test("names files that it cannot read", async () => {
    const text = JSON.stringify(madeResult());
    const cases: [string, string][] = [
      [file("cut.json", text.slice(0, 5000)), "cut.json is truncated or is not JSON"],
      [
        file("v9.json", { ...madeResult(), schema: "speedlimit/bench@9" }),
        "its schema is speedlimit/bench@9",
      ],
      [file("none.json", {}), "it has no schema"],
      [file("empty.json", { schema: "speedlimit/limit@2" }), "it has no trials"],
      [join(folder, "absent.json"), "cannot read"],
    ];
    for (const [path, message] of cases) {
      const { status, stdout, stderr } = await report(path);
      assertEquals([status, stdout], [1, ""]);
      assertMatch(stderr, /^report: .*\n$/);
      assertStringIncludes(stderr, message);
    }
  });

  test("refuses a command line that is wrong", async () => {
    for (
      const args of [[], [made, "--fail-on-regression"], [
        made,
        "--against",
        made,
        "--svg",
        "x.svg",
      ]]
    ) {
      assertEquals((await report(...args)).status, 2);
    }
  });

  test("compares, and fails on a regression only when asked", async () => {
    const slower = file(
      "slower.json",
      madeResult(MADE_READERS.map((reader) => ({
        ...reader,
        limits: reader.limits.map((limit) => limit * 0.8),
      }))),
    );
    const told = await report("--against", made, slower);
    assertEquals([told.status, told.stderr], [0, ""]);
    assertMatch(told.stdout, /^python naive +13 B +slower +-20\.0 % +-2[\d.]+ % to -1[\d.]+ %$/m);
    assertStringIncludes(told.stdout, "Its 95 % interval comes from Welch's t");
    const failed = await report("--against", made, slower, "--fail-on-regression");
    assertEquals(failed.status, 1);
    assertMatch(failed.stderr, /slower by more than 5 %.*python naive/);
    const lenient = ["--fail-on-regression", "--threshold", "30%"];
    assertEquals((await report("--against", made, slower, ...lenient)).status, 0);
    assertEquals((await report("--against", made, made, "--fail-on-regression")).status, 0);
  });

  test("tells of another machine, of an interrupted file, and of what is measured no more", async () => {
    const change = (result: Partial<BenchResult>, name: string) =>
      file(name, madeResult(MADE_READERS, result));
    const { machine } = madeResult();
    const other = change({ machine: { ...machine, cores: 64 } }, "other.json");
    const cut = change({ complete: false, quick: true }, "interrupted.json");
    const fewer = file("fewer.json", madeResult(MADE_READERS.slice(1)));
    const [machines, caveats, lost] = await Promise.all([
      report("--against", made, other, "--fail-on-regression"),
      report("--against", made, cut),
      report("--against", made, fewer, "--fail-on-regression"),
    ]);
    assertEquals([machines.status, caveats.status, lost.status], [1, 0, 1]);
    assertStringIncludes(machines.stdout, "processor: 2 x Example CPU, now 64 x Example CPU");
    assertStringIncludes(machines.stderr, "different machines");
    assertStringIncludes(caveats.stdout, "the new file: the benchmark was interrupted");
    assertStringIncludes(lost.stdout, "not in the new file");
    assertStringIncludes(lost.stderr, "c drain");
  });
});
