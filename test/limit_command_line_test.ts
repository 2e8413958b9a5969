/** What bin/limit.ts refuses: each in one line that says what would be right. */
import { describe, test } from "node:test";
import { createServer } from "node:net";
import { assert, assertEquals, assertMatch, assertRejects } from "#std/assert";
import { UsageError } from "../src/cli/command_line.ts";
import { main } from "../src/cli/limit.ts";
import { LIMIT } from "./limiting.ts";
import { run } from "./process.ts";
import { within } from "./within.ts";

describe("bin/limit.ts refuses", () => {
  async function refuses(args: string[], status: number, says: RegExp): Promise<void> {
    const result = await run([LIMIT, ...args], { timeoutMs: 15_000 });
    const what = `${args.join(" ").slice(0, 60)}: ${result.stderr}${result.stdout}`;
    assertEquals([result.status, result.stdout], [status, ""], what);
    assertMatch(result.stderr, /^limit: [^\n]+\n$/, what);
    assertMatch(result.stderr, says, what);
    assert(!/\bat .*:\d+:\d+|Error:/.test(result.stderr), `a stack: ${what}`);
  }

  /** As the command parses it, without a process. */
  async function refusesLine(args: string[], says: RegExp): Promise<void> {
    const refused = assertRejects(() => main(args), UsageError, undefined, args.join(" "));
    const { message } = await within(`the refusal of ${args.join(" ")}`, 5000, refused);
    assertMatch(message, says);
    assert(!message.includes("\n"), message);
  }

  const huge = "99999999999999999999";
  const wrong: Record<string, [says: RegExp, ...values: string[]]> = {
    "--listen": [
      /HOST:PORT|port from 0/,
      "8000",
      "127.0.0.1",
      ":80",
      "::1:80",
      "host:99999",
      `a:${huge}`,
      "-1",
    ],
    "--message": [/escapes/, "\\q", "ends in \\"],
    "--size": [/size such as/, "0", "-1", "257M", huge, "big"],
    "--precision": [/share such as/, "0", "-1%", "0.1%", "51%", "100%", huge, "fine"],
    "--min-rate": [
      /bytes per second/,
      "0",
      "0B/s",
      "-1MB/s",
      "1M/s",
      "5",
      "1e16B/s",
      "slow",
      "max",
    ],
    "--max-rate": [
      /bytes per second/,
      "0",
      "0B/s",
      "-1MB/s",
      "1M/s",
      "5",
      "1e16B/s",
      "fast",
      "max",
    ],
    "--time": [/duration such as/, "0", "-1s", "19s", "99999h", huge, "soon"],
    "--max-trial": [/duration such as/, "0", "-1s", "10ms", "99999h", huge, "soon"],
    "--readers": [/whole number/, "0", "-1", "1.5", "1001", huge, "all"],
    "--replies": [/drain or ignore/, "yes", "0", "DRAIN"],
  };
  for (const [option, [says, ...values]] of Object.entries(wrong)) {
    test(`a wrong ${option}`, async () => {
      for (const value of values) await refusesLine([option, value], says);
      const needsValue = new RegExp(`${option} needs a value`);
      await refusesLine([option], needsValue);
      await refusesLine([`${option}=`], needsValue);
    });
  }

  const others: [args: string[], says: RegExp][] = [
    [["--json", "--"], /no command follows --/],
    [["--attach", "--", "cat"], /--attach and a command after -- exclude each other/],
    [["--min-rate", "2MB/s", "--max-rate", "1MB/s"], /--max-rate must be at least --min-rate/],
    [["--message", "a", "--size", "10"], /--message and --size exclude each other/],
    [["--atach"], /unknown option "--atach"; did you mean --attach\?/],
    [["--reader", "3"], /did you mean --readers\?/],
    [["--replies", "drian"], /did you mean drain\?/],
    [["--nonsense"], /unknown option "--nonsense"/],
    [["--json", "--json"], /--json is given twice/],
    [["--readers", "2", "--readers", "3"], /--readers is given twice/],
    [["--attach=yes"], /--attach takes no value/],
  ];
  test("what is misspelt, given twice, or contradicts itself", async () => {
    for (const [args, says] of others) await refusesLine(args, says);
  });

  test("as a process: one line, and exit status 2", async () => {
    await Promise.all([
      refuses(["--precision", "51%"], 2, /^limit: --precision "51%" must be .* \(see --help\)$/m),
      refuses(["--json", "--"], 2, /^limit: no command follows --; .* \(see --help\)$/m),
    ]);
  });

  test("a port in use, a host that does not resolve", async () => {
    const busy = createServer();
    await new Promise<void>((done) => busy.listen(0, "127.0.0.1", done));
    const { port } = busy.address() as { port: number };
    try {
      await refuses(["--attach", "--listen", `127.0.0.1:${port}`], 1, /already in use/);
    } finally {
      await new Promise((done) => busy.close(done));
    }
    await refuses(["--attach", "--listen", "no.such.invalid:0"], 1, /does not resolve/);
  });
});
