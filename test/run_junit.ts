/** What a JUnit report of one test file says, as each of the three runtimes writes it. */

export interface Counts {
  passed: number;
  failed: number;
  skipped: number;
}

/** The counts of one report, and the tests that were skipped, each with its reason where there is one. */
export interface Report extends Counts {
  skips: string[];
}

/**
 * Reads a report. `output` is what the tests printed: a test that skips itself prints
 * `  skipped: REASON`, and in Deno's report (2.9.5) it is a test that passed.
 */
export function readReport(report: string, output: string): Report {
  const cases = [...report.matchAll(/<testcase\s([^>]*?)(\/>|>([\s\S]*?)<\/testcase>)/g)].map((
    match,
  ) => ({
    name: /(?:^|\s)name="([^"]*)"/.exec(match[1]!)?.[1] ?? "",
    body: match[3] ?? "",
  }));
  const counts: Report = { passed: 0, failed: 0, skipped: 0, skips: [] };
  for (const { name, body } of cases) {
    // Deno lists a suite as a test of its own, beside its tests.
    if (cases.some((other) => other.name.startsWith(`${name} &gt; `))) continue;
    if (/<(failure|error)/.test(body)) counts.failed++;
    else if (/<skipped/.test(body)) {
      counts.skipped++;
      const reason = /<skipped[^>]*message="([^"]*)"/.exec(body)?.[1];
      counts.skips.push(unescape(reason === undefined ? name : `${name}: ${reason}`));
    } else counts.passed++;
  }
  const printed = [...output.matchAll(/^\s*skipped: (.*)$/gm)].map((match) => match[1]!);
  if (report.includes('name="deno test"')) {
    counts.passed -= printed.length;
    counts.skipped += printed.length;
    counts.skips.unshift(...printed);
  } else if (printed.length >= counts.skips.length) {
    // Bun's report names the test and no reason; what was printed has it.
    counts.skips = printed;
  }
  return counts;
}

function unescape(text: string): string {
  return text.replaceAll("&quot;", '"').replaceAll("&apos;", "'").replaceAll("&lt;", "<")
    .replaceAll("&gt;", ">").replaceAll("&amp;", "&");
}
