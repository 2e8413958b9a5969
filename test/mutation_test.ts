/** The changes that bench/mutation.ts makes: which ones, and that their text is as it says. */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, test, type TestContext } from "node:test";
import { assert, assertEquals } from "#std/assert";
import { mutantsOf, mutated } from "../bench/mutants.ts";
import { namedMutants } from "../bench/mutation_named.ts";
import { runtime } from "../src/kernel/runtime.ts";
import { ROOT } from "./process.ts";
import { skip } from "./skip.ts";

const changesOf = (source: string) =>
  mutantsOf("x.ts", source).map((mutant) => mutated(source, mutant));

/** Runs on Node. */
const onNode = (run: () => void) => (t: TestContext) =>
  runtime === "node" ? run() : skip(t, "only Node takes types out of a source");

describe("changes of a source", () => {
  test(
    "are these, and no others",
    onNode(() => {
      for (
        const [source, ...changes] of [
          ["const a: number = b + c;", "const a: number = b - c;"],
          ["const a = b < c;", "const a = b <= c;", "const a = b >= c;"],
          ["const a: Map<string, B> = b;"],
          ["const a = 20;", "const a = 40;", "const a = 1;"],
          ["const a = 0;", "const a = 1;"],
          ['const a = "1 + 2" + b;'],
          ["const a = `${1 + `}`} < 2`;"],
          ["const a = /[/]+/.test(b) && c;", "const a = /[/]+/.test(b) || c;"],
          ["const a = -b;"],
          ["const a = !b;", "const a = b;"],
          ["const a = true;", "const a = false;"],
          ["const a = { min: b };"],
          ["const a = Math.min(b, c);", "const a = Math.max(b, c);"],
          ["// 1 + 2\n/* 3 */ call(a);", "// 1 + 2\n/* 3 */ ;"],
          ["class A {\n  readonly b: C;\n  d = 0;\n}", "class A {\n  readonly b: C;\n  d = 1;\n}"],
          ["process.kill(-pid, 9);"],
          [
            "if (a) b();",
            "if (false) b();",
            "if (true) b();",
            "if (a) ;",
          ],
          [
            "function f(): number { return a; }",
            "function f(): number { return; return a; }",
            "function f(): number { return; }",
          ],
          ["function f() { return undefined; }", "function f() { return; return undefined; }"],
        ]
      ) {
        assertEquals(changesOf(source!).sort(), changes.sort(), source);
      }
    }),
  );

  test(
    "have keys that say what they are, each once",
    onNode(() => {
      const source = "a = 0;\nb = a;\na = 0;";
      const keys = mutantsOf("x.ts", source).map(({ line, key }) => [line, key]);
      assertEquals(keys, [
        [1, "x.ts: a = 0; => ;"],
        [1, "x.ts: a = 0; => a = 1;"],
        [2, "x.ts: b = a; => ;"],
        [3, "x.ts: a = 0; => ; (2)"],
        [3, "x.ts: a = 0; => a = 1; (2)"],
      ]);
    }),
  );

  test(
    "that are explained are changes of today's source",
    onNode(() => {
      const file = join(ROOT, "bench/mutation_explained.json");
      const explained = JSON.parse(readFileSync(file, "utf8")) as Record<string, string>;
      const files = new Set(Object.keys(explained).map((key) => key.split(": ")[0]!));
      const keys = new Set(
        [...files].flatMap((file) => mutantsOf(file, readFileSync(join(ROOT, file), "utf8")))
          .map(({ key }) => key),
      );
      assertEquals(Object.keys(explained).filter((key) => !keys.has(key)), []);
      assert(Object.values(explained).every((why) => why.length > 10));
    }),
  );
});

test("changes by name are found in the source, and change it", () => {
  const read = (file: string) => readFileSync(join(ROOT, file), "utf8");
  const { mutants, lost } = namedMutants(read, () => true);
  assertEquals([mutants.length, lost], [5, []]);
  for (const mutant of mutants) {
    const source = read(mutant.file);
    assert(mutated(source, mutant) !== source);
    assertEquals(
      source.split("\n")[mutant.line - 1]!.includes(mutant.before.split("\n")[0]!),
      true,
    );
  }
  assertEquals(
    namedMutants(() => undefined, (file) => file.startsWith("src/send/")).lost.length,
    2,
  );
});
