/** The readers whose true rate is known (bench/readers/kinds.c), and how bench/accuracy.ts judges them. */
import { execFile } from "node:child_process";
import { promisify } from "node:util";
import { describe, test } from "node:test";
import { assertAlmostEquals, assertEquals, assertGreater, assertNotEquals } from "#std/assert";
import {
  argumentsOf,
  formatCoverage,
  formatKindRow,
  judgeKind,
  KIND_CASES,
  KIND_HEAD,
  KIND_PARTS,
  type KindCase,
  kindCases,
  messageOptions,
  nameKind,
} from "../bench/accuracy_kinds.ts";
import { formatCompilers } from "../bench/accuracy_languages.ts";
import { compileC } from "../bench/readers/compile.ts";
import { LANGUAGES } from "../bench/readers/languages.ts";
import { parseMessage } from "../src/cli/message_options.ts";
import { environment } from "../src/kernel/environment.ts";
import { CONFIRMED, type LimitResult } from "../src/measure/limit_result.ts";
import { sendAndFinish, withServer } from "./peer.ts";
import { within } from "./within.ts";

const program = await compileC(new URL("../bench/readers/kinds.c", import.meta.url));
const run = async (...args: string[]) => {
  const { stdout, stderr } = await within("the reader", 20_000, promisify(execFile)(program, args));
  return `${stdout}${stderr}`;
};

/** Its mean over so many seconds of its own time, which no machine makes longer. */
async function meanOf(args: string[], seed: string, seconds = "2000"): Promise<number> {
  const out = await run(...args, "--seed", seed, "--mean", seconds);
  return Number(/seed: (\d+) bytes\/s$/m.exec(out)![1]);
}

describe("a reader whose speed varies has its true rate as its mean", () => {
  for (
    const args of [
      ["noise", "h", "p", "1000000", "--sd", "5", "--tau", "0.05"],
      ["noise", "h", "p", "1000000", "--sd", "20", "--tau", "0.3"],
      ["pauses", "h", "p", "1000000"],
      ["lognormal", "h", "p", "1000000", "--cv", "2"],
    ]
  ) {
    test(args.join(" "), async () => {
      const [first, again, other] = await Promise.all(["1", "1", "2"].map((s) => meanOf(args, s)));
      assertAlmostEquals(first!, 1e6, 1e4);
      assertAlmostEquals(other!, 1e6, 1e4);
      assertEquals(first, again);
      assertNotEquals(first, other);
      // In a short time it is another one.
      assertGreater(Math.abs(await meanOf(args, "1", "0.5") / 1e6 - 1), 0.002);
    });
  }
});

describe("a reader works off all, and no faster than its rate", () => {
  for (
    const args of [
      ["queue", "--intake", "8000000"],
      ["queue", "--bound", "200000"],
      ["batches", "--batch", "50:100"],
      ["lowat", "--lowat", "65536"],
      ["noise", "--sd", "5", "--tau", "0.05", "--seed", "1"],
      ["drift", "--drift", "10"],
    ]
  ) {
    test(args.join(" "), async () => {
      const out = await withServer(
        (connection) => sendAndFinish(connection, 1_000_000),
        ({ host, port }) => run(args[0]!, host, String(port), "2000000", ...args.slice(1)),
      );
      const [, read, worked, seconds] =
        /read (\d+) bytes, worked off (\d+) in ([\d.]+) s, .* ended by eof/.exec(out)!.map(Number);
      assertEquals([read, worked], [1_000_000, 1_000_000]);
      // It may be 20 ms ahead, and the noise is 5 %.
      assertGreater(seconds!, 0.44);
    });
  }

  test("exits once it has read so much", async () => {
    const out = await withServer(
      (connection) => sendAndFinish(connection, 1_000_000),
      ({ host, port }) => run("exit", host, String(port), "10000000", "--exit", "100000"),
    );
    assertEquals(/ended by its own will/.test(out), true, out);
  });
});

const result = (figures: Partial<LimitResult>): LimitResult => ({
  schema: "speedlimit/limit@2",
  reader: "kinds",
  readers: 1,
  outcome: "found",
  message: CONFIRMED,
  limit: { lower: 1.99e6, upper: 2.01e6, messagesPerSecond: 1 },
  keepsUpAt: 1.99e6,
  until: "worked",
  intake: null,
  hoards: false,
  hidden: null,
  output: null,
  drift: null,
  overload: null,
  recovery: null,
  trials: [],
  interrupted: false,
  queueSource: "socket",
  messageSize: 13,
  precision: 0.01,
  confidence: 0.95,
  sampleSeconds: 0.01,
  seconds: 20,
  environment: environment(),
  ...figures,
});

describe("the row of such a reader", () => {
  const reader = (expected: KindCase["expected"]): KindCase => ({
    ...{ part: "queues", kind: "queue", rate: 2e6, args: [], expected },
    ...(expected === "hoards" ? { intake: 16e6 } : {}),
  });
  const limit = (lower: number, upper: number) => ({ lower, upper, messagesPerSecond: 1 });
  const wrong = { limit: limit(2.1e6, 2.3e6) };
  const drift = {
    ...{ first: 2e6, last: 1.5e6, seconds: 10, messages: 1e6 },
    ...{ perMinute: -1, perMillionMessages: -0.05 },
  };
  for (
    const [expected, figures, met] of [
      ["limit", {}, true],
      ["limit", { hoards: false }, true],
      ["limit", { hoards: true }, false],
      ["limit", { seconds: 31 }, false],
      ["limit", wrong, false],
      // It holds it, but its middle is 7 % off.
      ["limit", { limit: limit(1.99e6, 2.3e6) }, false],
      ["limit", { outcome: "irregular" }, false],
      ["limit", { outcome: "below-range", limit: null }, false],
      ["hoards", {}, false],
      ["hoards", { hoards: true }, true],
      ["hoards", { ...wrong, hoards: true }, false],
      ["drift", {}, false],
      ["drift", { drift }, false],
      ["drift", { drift, message: "it becomes slower" }, true],
      ["fails", {}, false],
      ["fails", { outcome: "reader-failed", limit: null }, true],
    ] as const
  ) {
    test(`${expected}, ${JSON.stringify(figures)}: ${met}`, () => {
      const row = judgeKind(reader(expected), "node", [], result(figures));
      assertEquals(row.met, met);
      const cells = formatKindRow(row);
      assertEquals(cells.length, KIND_HEAD.length);
      assertEquals(cells.at(-1)!.startsWith("reached"), met);
    });
  }

  test("tells what it takes beside, and the coverage of a part", () => {
    const figures = {
      hoards: true,
      intake: { lower: 15e6, upper: 17e6 },
      hidden: { offered: 5e6, seconds: 2, bytes: 4e6, memoryBytesPerSecond: 1 },
    };
    const rows = [{}, { limit: limit(3e6, 4e6) }].map((each) =>
      judgeKind(reader("hoards"), "node", [], result({ ...figures, ...each }))
    );
    assertEquals(formatKindRow(rows[0]!)[6], "hoards 4.00 MB; takes 15.0-17.0 MB/s, right");
    assertEquals(rows.map(({ holds }) => holds), [true, false]);
    assertEquals(formatCoverage(rows), "queues 1 of 2");
  });

  test("each part has its cases", () => {
    assertEquals(kindCases(undefined), KIND_CASES);
    assertEquals(kindCases("queues").map(({ kind }) => kind), ["queue", "queue"]);
    assertEquals(KIND_PARTS.filter((part) => kindCases(part).length === 0), []);
  });
});

describe("the readers in other languages", () => {
  const cases = kindCases("languages");

  test("are three in each that hoard, and three that do not", () => {
    const counted = LANGUAGES.map((language) => {
      const own = cases.filter((each) => each.language === language);
      assertEquals(new Set(own.map(({ kind }) => kind)).size, 6);
      return ["hoards", "limit"].map((each) => own.filter((one) => one.expected === each).length);
    });
    assertEquals(counted, LANGUAGES.map(() => [3, 3]));
    assertEquals(cases.length, 6 * LANGUAGES.length);
    assertEquals(nameKind(cases[0]!), "go goroutines 256 kB/s");
  });

  test("are told what a line costs, and get lines", () => {
    for (const each of cases) {
      assertEquals(argumentsOf(each, 7), [each.kind, "{host}", "{port}", "250"]);
      const [option, text] = messageOptions(each);
      assertEquals(option, "--message");
      const message = parseMessage(text!);
      const line = new TextDecoder().decode(message.slice(0, message.size));
      assertEquals([line.length, line.indexOf("\n")], [64, 63]);
      // So many lines of that size a second are its rate.
      assertEquals(line.length * 1e6 / 250, each.rate);
    }
  });

  test("differ from those in C, which draw from a seed and choose the size only", () => {
    const each = kindCases("work")[0]!;
    const start = ["lognormal", "{host}", "{port}", "1000000", "--message", "1000", "--cv", "1"];
    assertEquals(argumentsOf(each, 7), [...start, "--seed", "7"]);
    assertEquals(messageOptions(each), ["--size", "1000"]);
    assertEquals(messageOptions(kindCases("noise")[0]!), []);
  });

  test("may take longer than a reader without a runtime that pauses it", () => {
    const figures = { limit: { lower: 255e3, upper: 257e3, messagesPerSecond: 4e3 }, seconds: 55 };
    const honest = cases.find(({ expected }) => expected === "limit")!;
    assertEquals(judgeKind(honest, "node", [], result(figures)).met, true);
    assertEquals(judgeKind(honest, "node", [], result({ ...figures, seconds: 61 })).met, false);
  });

  test("name their compilers in the table's caption, and those that are missing", () => {
    assertEquals(formatCompilers({}), "");
    const compilers = ["go version go1.25", "rustc 1.91"];
    assertEquals(formatCompilers({ compilers }), "Compilers: go version go1.25, rustc 1.91. ");
    const skipped = ["the readers in rust (no rustc)"];
    assertEquals(formatCompilers({ skipped }), "Skipped: the readers in rust (no rustc). ");
  });
});
