/** Names of earlier versions: options that are still taken, and results that can still be read. */
import { after, describe, test } from "node:test";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import {
  assert,
  assertEquals,
  assertGreater,
  assertMatch,
  assertStringIncludes,
  assertThrows,
} from "#std/assert";
import { HelpRequest, UsageError } from "../src/cli/command_line.ts";
import { chooseServed, parseServerCommandLine } from "../src/cli/server_options.ts";
import { CONFIRMED, type LimitResult } from "../src/measure/limit_result.ts";
import { REASONS } from "../src/measure/search_result.ts";
import { drain } from "../src/read/drain.ts";
import { serve } from "../src/relay/serve.ts";
import { currentOptions } from "../src/relay/serve_options.ts";
import { readBench } from "../src/report/bench_file.ts";
import type { ReaderFigures } from "../src/report/bench_result.ts";
import { parseResult } from "../src/report/schema_1.ts";
import { fromBench, fromLimits, readResults } from "../src/report/report.ts";
import { madeLimit } from "./bench_results.ts";
import { ROOT, run } from "./process.ts";
import { within } from "./within.ts";

describe("the server's options by their old names", () => {
  const parse = (...args: string[]) =>
    parseServerCommandLine(["--overflow", "spill", "--spill", "q.db", ...args], "server.ts");

  test("are the same as by the present ones", () => {
    const present = parse(
      ...["--resume-below", "64k", "--zero-window-timeout", "5s", "--message", "numbered"],
    );
    assertEquals([present.resumeBelow, present.zeroWindowTimeout], [65_536, 5000]);
    assertEquals(parse("--low", "64k", "--dead-after", "5s", "--message", "seq"), present);
    assertEquals(parse("--low=64k", "--dead-after=5s", "--message=seq"), present);
    assertEquals(chooseServed(parse("--message", "seq", "--size", "100"), () => {}), {
      numbered: true,
      size: 100,
    });
  });

  test("count as given, and their values are checked", () => {
    const refuses = (args: string[], message: string) =>
      assertThrows(() => parse(...args), UsageError, message);
    refuses(["--low", "1k", "--resume-below", "1k"], "--resume-below is given twice");
    refuses(["--low", "much"], '--resume-below "much" must be a size');
    refuses(
      ["--low", "2k", "--backlog", "1k"],
      "--resume-below 2k must not be above --backlog, which is 1k: ",
    );
    refuses(["--dead-after", "soon"], '--zero-window-timeout "soon" must be a duration');
    refuses(["--dead-after"], "--zero-window-timeout needs a value");
  });

  test("are not in the help", () => {
    const { message } = assertThrows(() => parse("--help"), HelpRequest);
    assertMatch(message, /--resume-below/);
    assert(!/--low|--dead-after|(?<!\{)\bseq\b/.test(message), message);
  });
});

describe("the options of serve() by their old names", () => {
  test("are the same as by the present ones", () => {
    const old = {
      ...{ low: 1000, deadAfterMs: 2000, patienceMs: 3000, rate: 5 },
      message: { sequence: true, size: 64 },
    } as const;
    assertEquals(currentOptions(old), {
      ...{ resumeBelow: 1000, zeroWindowTimeoutMs: 2000, handshakeTimeoutMs: 3000, rate: 5 },
      message: { numbered: true, size: 64 },
    });
    assertEquals(currentOptions({ low: 1000, resumeBelow: 2000 }), { resumeBelow: 2000 });
    assertEquals(currentOptions({}), {});
  });

  test("message: { sequence: true, size } sends numbered messages", async () => {
    const size = 40;
    const server = await serve({
      ...{ port: 0, rate: 1000, durationMs: 200, overflow: "block" },
      message: { sequence: true, size },
    });
    const { port } = server.address;
    const reading = drain({ port, verify: { size } });
    const { ended, verified } = await within("the reader's end", 10_000, reading);
    const { messages } = await within("the server's end", 5000, server.done);
    assertGreater(messages, 0);
    const whole = { missing: 0, duplicates: 0, outOfOrder: 0, damaged: 0 };
    assertEquals([ended, verified], ["eof", { messages, ...whole }]);
  });

  test("patienceMs disconnects a reader that never says its name", async () => {
    const server = await serve({ port: 0, readerId: "hello", patienceMs: 50, overflow: "block" });
    try {
      const { bytes, ended } = await within("its end", 5000, drain({ port: server.address.port }));
      assertEquals(bytes, 0);
      assertMatch(ended, /^(eof|reset)$/);
    } finally {
      await within("the server's end", 5000, server.stop());
    }
  });
});

describe("a result of schema version 1", () => {
  const folder = mkdtempSync(join(tmpdir(), "speedlimit-old-"));
  after(() => rmSync(folder, { recursive: true }));

  /** As version 0.1 has written it. */
  const asVersion1 = (value: unknown): string =>
    JSON.stringify(value, (key, each) => {
      if (key === "schema") return String(each).replace("@2", "@1");
      if (key === "verdict" && each === "inconclusive") return "irregular";
      if (typeof each !== "object" || each === null) return each;
      const { achieved, keepsUpAt, ...rest } = each;
      if (achieved !== undefined) return { ...rest, kept: achieved };
      if (keepsUpAt !== undefined) return { ...rest, kept: keepsUpAt };
      return each;
    });
  const made = madeLimit("my reader", 5e6);
  made.trials[0]!.verdict = "inconclusive";

  test("of limit is read as one of version 2", () => {
    const text = asVersion1(made);
    for (const old of ['"speedlimit/limit@1"', '"kept":', '"verdict":"irregular"']) {
      assertStringIncludes(text, old);
    }
    assertEquals(parseResult(text), JSON.parse(JSON.stringify(made)));
    // The search's own outcome has kept its name.
    const irregular = asVersion1({ ...made, outcome: "irregular" });
    assertEquals((parseResult(irregular) as typeof made).outcome, "irregular");
    const file = join(folder, "limit.json");
    const present = join(folder, "present.json");
    writeFileSync(file, text);
    writeFileSync(present, JSON.stringify(made));
    assertEquals(readResults(file), readResults(present));
    assertEquals(readResults(file).readers, fromLimits([made], "").readers);
  });

  test("of limit without a command: both its readers", () => {
    const results = [made, { ...made, reader: "another" }];
    const file = join(folder, "limits.json");
    writeFileSync(file, asVersion1({ schema: "speedlimit/limits@2", results }));
    assertEquals(readResults(file).readers.map(({ name }) => name), ["my reader", "another"]);
  });

  test("of bench: bench/results/latest.json", () => {
    const file = join(ROOT, "bench/results/latest.json");
    const result = readBench(file);
    assertEquals(result.schema, "speedlimit/bench@2");
    const verdicts = new Set<string>();
    let figures = 0;
    for (const { cell, runs } of result.rows) {
      if (cell.kind !== "reader") continue;
      for (const run of runs as ReaderFigures[]) {
        figures++;
        assert(!("kept" in run) && run.keepsUpAt > 0, JSON.stringify(cell));
        for (const trial of run.trials) {
          assert(!("kept" in trial) && trial.achieved > 0, JSON.stringify(trial));
          verdicts.add(trial.verdict);
        }
      }
    }
    assertGreater(figures, 0);
    assertEquals([...verdicts].sort(), ["falls-behind", "inconclusive", "keeps-up"]);
    assertEquals(readResults(file).readers, fromBench(result).readers);
    // The figures are those of the file.
    const numbers = (text: string) => text.match(/\d{6,}(\.\d+)?/g)!.length;
    assertEquals(numbers(JSON.stringify(result)), numbers(readFileSync(file, "utf8")));
  });

  test("is shown by report, and can be compared with one of version 2", async () => {
    const file = join(folder, "old.json");
    const present = join(folder, "new.json");
    writeFileSync(file, asVersion1(made));
    writeFileSync(present, JSON.stringify(made));
    const shown = await run(["bin/report.ts", file]);
    assertEquals([shown.status, shown.stderr], [0, ""]);
    assertMatch(shown.stdout, /my reader/);
    const compared = await run(["bin/report.ts", present, "--against", file]);
    assertEquals([compared.status, compared.stderr], [0, ""]);
    assertMatch(compared.stdout, /my reader/);
  });
});

describe("a message of schema version 1", () => {
  const read = (message: string) =>
    (parseResult(JSON.stringify({ message })) as LimitResult).message;

  test("is read in today's words", () => {
    assertEquals(read("found and confirmed"), CONFIRMED);
    assertEquals(read("its trials took too long to be clear"), REASONS.outOfTime);
    assertEquals(read("it keeps up with all that this sender can make"), REASONS.senderLimit);
    assertEquals(read("it falls behind at the lowest rate already"), REASONS.tooSlow);
  });

  test("that is none of these stays as it is", () => {
    assertEquals(read("the reader exited with status 3"), "the reader exited with status 3");
    assertEquals(read(CONFIRMED), CONFIRMED);
  });
});
