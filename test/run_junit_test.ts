/** The counts that run.ts takes from a report, as the three runtimes write it. */
import { test } from "node:test";
import { assertEquals } from "#std/assert";
import { readReport } from "./run_junit.ts";

const PRINTED = "a test\n  skipped: no such thing\n";

test("Deno: a suite is no test, and a test that skips itself has not passed", () => {
  const report = `<testsuites name="deno test" tests="5" failures="2" errors="0" time="0.062">
    <testcase name="a" line="2"><failure message="1 test step failed">1 failed.</failure></testcase>
    <testcase name="a &gt; skips" line="1">
    </testcase>
    <testcase name="a &gt; skips too" line="1"><skipped/></testcase>
    <testcase name="a &gt; fails" line="1"><failure message="oh">Error: oh</failure></testcase>
    <testcase name="a &gt; passes" line="1">
    </testcase></testsuites>`;
  assertEquals(readReport(report, PRINTED), {
    ...{ passed: 1, failed: 1, skipped: 2 },
    skips: ["no such thing", "a > skips too"],
  });
});

test("Bun: reasons are in the output only", () => {
  const report = `<testsuites name="bun test" tests="3" failures="1" skipped="1">
    <testcase name="skips" classname="a" line="3"><skipped /></testcase>
    <testcase name="passes &lt;x&gt;" classname="a" line="5" />
    <testcase name="fails" classname="a"><failure type="Error" message="oh">oh</failure></testcase>
    </testsuites>`;
  assertEquals(readReport(report, PRINTED), {
    ...{ passed: 1, failed: 1, skipped: 1, skips: ["no such thing"] },
  });
});

test("Node: reasons are in the report", () => {
  const report = `<testsuites>
    <testcase name="skips" classname="a"><skipped type="skipped" message="&quot;x&quot;"/></testcase>
    <testcase name="passes" classname="a"/>
    <testcase name="fails" failure="oh"><failure type="x" message="oh">oh</failure></testcase>
    </testsuites>`;
  assertEquals(readReport(report, ""), {
    ...{ passed: 1, failed: 1, skipped: 1, skips: ['skips: "x"'] },
  });
});
