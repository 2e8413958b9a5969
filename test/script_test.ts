/** Scripts: what is understood, and how bin/limit.ts follows them. */
import { after, describe, test } from "node:test";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { assert, assertEquals, assertStringIncludes, assertThrows } from "#std/assert";
import { parseScript, ScriptError, type Statement } from "../src/send/script.ts";
import { runtime } from "../src/kernel/runtime.ts";
import { command, limitOf, parse } from "./limiting.ts";
import { ROOT } from "./process.ts";

const folder = mkdtempSync(join(tmpdir(), "speedlimit-script-"));
after(() => rmSync(folder, { recursive: true }));

const decode = (bytes: Uint8Array) => String.fromCharCode(...bytes);

function scriptFile(text: string): string {
  const file = join(folder, crypto.randomUUID());
  writeFileSync(file, text);
  return file;
}

describe("a script", () => {
  test("has statements, comments and empty lines", () => {
    const script = parseScript(
      "# a subscriber\r\n\nexpect SUB \\w+\\n\ntimeout 2s\nexpect x\nsend \\x00é\\\\\\n\n" +
        "every 500ms send PING\\n\n  answer A (\\d) with B with \\xff\n",
    );
    assertEquals(script.map(({ line, kind }) => [line, kind]), [
      [3, "expect"],
      [5, "expect"],
      [6, "send"],
      [7, "every"],
      [8, "answer"],
    ]);
    const kinds = <Kind extends Statement["kind"]>(kind: Kind) =>
      script.filter((each): each is Extract<Statement, { kind: Kind }> => each.kind === kind);
    const [first, second] = kinds("expect");
    assertEquals([first!.pattern.source, first!.timeoutMs], ["SUB \\w+\\n", 10_000]);
    assertEquals(second!.timeoutMs, 2000);
    assertEquals([...kinds("send")[0]!.bytes], [0, 0xc3, 0xa9, 92, 10]);
    const [every] = kinds("every");
    assertEquals([every!.everyMs, decode(every!.bytes)], [500, "PING\n"]);
    const answer = kinds("answer")[0]!;
    assertEquals([answer.pattern.source, [...answer.bytes]], ["A (\\d) with B", [255]]);
  });

  test("is refused with the number of its line", () => {
    const refused = (text: string) => assertThrows(() => parseScript(text), ScriptError).message;
    for (const wrong of ["say hello", "expect", "send ", "every 1s PING", "answer x"]) {
      assertStringIncludes(
        refused(`send a\n${wrong}`),
        "line 2: a statement is expect REGEX, send",
      );
    }
    assertStringIncludes(refused("expect ("), "line 1: Invalid regular expression");
    assertStringIncludes(refused("send \\q"), "line 1: must use \\n, ");
    assertStringIncludes(refused("expect a*"), "line 1: /a*/ matches nothing at all, too");
    assertStringIncludes(refused("every 0.1ms send x"), "line 1: ");
    assertStringIncludes(refused("# nothing\n"), "has no statement; a statement is");
  });

  test("each example in docs/scripts.md is one", () => {
    const docs = readFileSync(join(ROOT, "docs/scripts.md"), "utf8");
    const examples = docs.slice(docs.indexOf("## Examples")).split(/\n\n(?! {4})/)
      .filter((block) => /\n\n {4}/.test(block))
      .map((block) => block.slice(block.indexOf("\n\n    ")).replaceAll(/^ {4}/gm, ""));
    assertEquals(examples.length, 5);
    for (const example of examples) assert(parseScript(example).length > 1, example);
  });
});

const subscribing = (behaviour: string) =>
  command("test/readers/subscribing.ts", "{host}", "{port}", behaviour);
const SCRIPT = scriptFile("expect SUBSCRIBE \\S+\\n\nsend +OK\\n\nanswer PING\\n with PONG\\n\n");

describe(`limit --script on ${runtime}`, () => {
  test("a subscriber gets its answers between whole messages", async () => {
    const ran = await limitOf(
      subscribing("subscribes"),
      ...["--script", SCRIPT, "--template", "tick {seq}", "--max-rate", "500kB/s"],
    );
    const { outcome, message, trials } = parse(ran);
    assertEquals([ran.status, outcome], [0, "generator-limited"], `${message}\n${ran.stderr}`);
    assert(trials.every(({ ended }) => ended === undefined), ran.stderr);
  });

  test("a reader that says something else, or nothing, has failed: with the line, and what it said", async () => {
    const failed = async (reader: readonly string[], script: string) => {
      const { status, stdout, stderr } = await limitOf(reader, "--script", script);
      const { outcome, message } = JSON.parse(stdout);
      assertEquals([status, outcome], [1, "reader-failed"], stderr);
      return message as string;
    };
    const soon = scriptFile(`timeout 1s\n${readFileSync(SCRIPT, "utf8")}`);
    assertEquals(
      await failed(subscribing("says something else"), soon),
      'line 2 of the script expects /SUBSCRIBE \\S+\\n/, and within 1.00 s the reader has said "HELLO "',
    );
    assertEquals(
      await failed(subscribing("subscribes"), scriptFile("expect SUB\nsend -ERR\\n\nexpect more")),
      'line 3 of the script expects /more/, and the reader has said "SCRIBE ticks " and closed its ' +
        "connection; the reader exited with status 7: error: subscribing failed: -ERR",
    );
  });

  test("a script that cannot be read is refused", async () => {
    const refused = async (file: string) => {
      const { status, stdout, stderr } = await limitOf(["x"], "--script", file);
      assertEquals([status, stdout], [2, ""]);
      return stderr;
    };
    assertStringIncludes(await refused(join(folder, "gone")), "cannot be read");
    assertStringIncludes(await refused(scriptFile("hello")), "line 1: a statement is expect REGEX");
  });
});
