/** serve --line-format: how the server's lines for people begin. */
import { describe, test } from "node:test";
import { join } from "node:path";
import { assert, assertEquals, assertMatch } from "#std/assert";
import { formatLines } from "../src/cli/line_format.ts";
import { run } from "./process.ts";
import { connect, json, serving, withFolder } from "./serving.ts";
import { within } from "./within.ts";

const STAMP = String.raw`\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z`;

/** What a server prints of two readers, one too many, and of its end: by lines. */
async function printed(...args: string[]): Promise<{ stdout: string[]; stderr: string[] }> {
  let result = { stdout: "", stderr: "" };
  await serving(["--rate", "1k/s", "--max-readers", "1", ...args], async (program, port) => {
    const reader = await connect(port);
    await within("the reader", 5000, program.saw(/reader 1 connected|"reader":1/));
    const second = await connect(port);
    await within("the refusal", 5000, program.saw(/rejected|"refused"/));
    second.destroy();
    reader.destroy();
    program.kill("SIGTERM");
    result = await within("its end", 5000, program.ended);
  });
  const linesOf = (text: string) => text === "" ? [] : text.trimEnd().split("\n");
  return { stdout: linesOf(result.stdout), stderr: linesOf(result.stderr) };
}

describe("--line-format", () => {
  test("time: each line has the time and a level", async () => {
    const before = Date.now();
    const { stdout, stderr } = await printed("--line-format", "time", "--metrics", "0");
    assertEquals(stdout.length, 5);
    assertEquals(stderr.length, 1);
    for (const line of stdout) assertMatch(line, new RegExp(`^${STAMP} info [a-z]`));
    assertMatch(stderr[0]!, new RegExp(`^${STAMP} warn rejected 127`));
    const times = stdout.map((line) => Date.parse(line.split(" ")[0]!));
    assertEquals(times, times.toSorted((a, b) => a - b));
    assert(times[0]! >= before && times.at(-1)! <= Date.now(), stdout.join("\n"));
  });

  test("journal: each line has a priority", async () => {
    const { stdout, stderr } = await printed("--line-format", "journal");
    assertEquals(stdout.length, 4);
    for (const line of stdout) assertMatch(line, /^<6>[a-z]/);
    assertMatch(stderr.join("\n"), /^<4>rejected 127[^\n]*$/);
  });

  test("plain is the default: lines as they are", async () => {
    const { stdout, stderr } = await printed();
    assertMatch(stdout[0]!, /^listening on /);
    assertMatch(stderr.join("\n"), /^rejected 127[^\n]*$/);
  });

  test("does not change --json, but the lines for people", async () => {
    const { stdout, stderr } = await printed(...json, "--line-format", "time");
    for (const line of stdout) assert("event" in JSON.parse(line), line);
    assertEquals(stderr, []);
  });

  test("a reader that is turned away is a warning, with its name", () =>
    withFolder(async (folder) => {
      const queue = ["--overflow", "spill", "--spill", join(folder, "queue")];
      const names = ["--reader-id", "hello", "--max-reader-names", "1", "--rate", "1k/s"];
      await serving(["--line-format", "journal", ...queue, ...names], async (program, port) => {
        const say = async (lines: string, until: RegExp) => {
          const reader = await connect(port);
          // It ends when the server does.
          reader.resume();
          reader.write(lines);
          await within(`the answer to ${lines}`, 5000, program.saw(until));
        };
        await say("fast\n", /^<6>reader 1 is fast$/m);
        await say("fast\n", /^<6>reader 1 \(fast\): replaced by reader 2 after /m);
        await say(
          "slow\n",
          /^<4>reader 3 \(slow\): rejected after .* 1 names of readers are known/m,
        );
        await say("two words\n", /^<4>reader 4: rejected after .* must be its name/m);
        const other = /^<4>reader 5 \(fast\): rejected .* 00c0ffee0123abcd, .* [0-9a-f]{16}: /m;
        await say("fast\nresume 640 00c0ffee0123abcd\n", other);
        for (const line of program.stderr.trimEnd().split("\n")) assertMatch(line, /^<4>/);
      });
    }));

  test("of an error that ends the server", async () => {
    const args = ["--line-format", "journal", "--source", "/nowhere", "--frame", "line"];
    const { status, stdout, stderr } = await run(["server.ts", "--port", "0", ...args]);
    assertEquals([status, stdout], [1, ""]);
    assertMatch(stderr, /^<3>server: [^\n]+\n$/);
  });

  test("is at the beginning of each line of a text", () => {
    assertEquals(formatLines("one\n  two", "error", "journal"), "<3>one\n<3>  two");
    assertEquals(formatLines("one\n  two", "error", "plain"), "one\n  two");
  });
});
