/** bin/limit.ts --out: readers that are measured by what they put out. */
import { after, describe, test } from "node:test";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import {
  assert,
  assertEquals,
  assertGreater,
  assertMatch,
  assertStringIncludes,
} from "#std/assert";
import { runtime } from "../src/kernel/runtime.ts";
import { assertFound, command, LIMIT, limitOf, parse } from "./limiting.ts";
import { run } from "./process.ts";

const folder = mkdtempSync(join(tmpdir(), "speedlimit-limit-output-"));
after(() => rmSync(folder, { recursive: true }));

const LINES = 5000;
const MESSAGE = ["--template", "{seq} hello"];
/** With its line feed. */
const SIZE = 17;

const reader = (place: string, { rate = LINES, bound = 1e9 } = {}) =>
  command("test/readers/putting_out.ts", "{host}", "{port}", String(rate), String(bound), place);

describe(`limit --out on ${runtime}`, () => {
  test("a reader that takes everything and puts it out later: its limit by its file", async () => {
    const file = `file:${join(folder, "out")}`;
    const ran = await limitOf(reader(file), ...MESSAGE, "--out", file, "--precision", "3%");
    const result = parse(ran);
    assertFound(result, LINES * SIZE, 0.03);
    assertEquals([result.until, result.hoards], ["output", true], result.message);
    assertGreater(result.intake!.lower, 1.2 * LINES * SIZE);
    const { place, numbered, lost, duplicated, reordered, firstLossAt } = result.output!;
    assertEquals([place, numbered], [file, true]);
    assertEquals([lost, duplicated, reordered, firstLossAt], [0, 0, 0, null]);
  });

  test("a reader that drops what is too much: which rate loses the first message", async () => {
    const ran = await limitOf(
      reader("stdout", { bound: 500 }),
      ...[...MESSAGE, "--out", "stdout", "--precision", "3%"],
    );
    const { output, limit, message, trials } = parse(ran);
    assert(limit !== null, message);
    assertGreater(output!.lost, 0, ran.stderr);
    assertGreater(output!.firstLossAt!, 0.9 * limit.lower);
    assertMatch(message, /it lost [\d.]+ k? ?messages, the first at |it lost /);
    const kept = trials.filter(({ verdict, lost = 0 }) => verdict === "keeps-up" && lost > 0);
    assertEquals(kept, []);
  });

  for (const [place, out] of [["{out}", "connect:{out}"], ["replies", "replies"]] as const) {
    test(`${out}: nothing is lost below the limit`, async () => {
      const options = ["--out", out, "--max-rate", "50kB/s"];
      const ran = await limitOf(reader(place, { rate: 20 * LINES }), ...MESSAGE, ...options);
      const { outcome, output, message } = parse(ran);
      assertEquals([ran.status, outcome], [0, "generator-limited"], `${message}\n${ran.stderr}`);
      assertEquals([output!.lost, output!.duplicated, output!.firstLossAt], [0, 0, null]);
    });
  }

  test("an output that never comes, or with other messages, is reported with why", async () => {
    const failed = async (...options: string[]) => {
      const { status, stdout, stderr } = await limitOf(reader("stdout"), ...MESSAGE, ...options);
      const { outcome, message } = JSON.parse(stdout);
      assertEquals([status, outcome], [1, "reader-failed"], stderr);
      return message as string;
    };
    const took = "the reader took what it was sent, but within 10 s nothing";
    const [silent, other, framed, folded] = await Promise.all([
      failed("--out", `file:${join(folder, "never")}`),
      failed("--out", "stdout", "--out-match", "^never$"),
      failed("--out", "stdout", "--out-frame", "octet"),
      failed("--out", `file:${folder}`),
    ]);
    assertEquals(silent, `${took} came out: file:${join(folder, "never")}`);
    assertEquals(other, `${took} that matches /^never$/ came out: stdout`);
    assertMatch(framed, /^its output, stdout, cannot be read: a message announces 1000000000 /);
    assertMatch(folded, /^its output, file:.*, cannot be read: /);
  });

  for (
    const [args, expected] of [
      [["--out", "nowhere", "--", "x"], '--out "nowhere" must be replies, stdout, file:PATH'],
      [["--out-frame", "line", "--", "x"], "--out-frame and --out-match need --out"],
      [["--out", "stdout", "--attach"], "--out stdout needs a command after --"],
      [["--out", "connect:{out}", "--", "x"], "--out connect:{out} needs {out} in the command"],
      [["--out", "stdout", "--readers", "2", "--", "x"], "--out is for one reader"],
      [["--out", "stdout", "--until", "taken", "--", "x"], "--out and --until exclude each other"],
      [
        ["--out", "replies", "--replies", "ignore", "--", "x"],
        "--out replies and --replies ignore",
      ],
      [["--out", "stdout", "--out-match", "(", "--", "x"], "must be a regular expression: "],
    ] as const
  ) {
    test(`refuses ${args.join(" ")}`, async () => {
      const { status, stdout, stderr } = await run([LIMIT, ...args]);
      assertEquals([status, stdout], [2, ""]);
      assertStringIncludes(stderr, expected);
    });
  }
});
