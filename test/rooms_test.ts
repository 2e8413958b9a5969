/** The rooms of src/ import one way, and each begins with a file that says what it is for. */
import { after, before, describe, test } from "node:test";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { assert, assertEquals, assertGreater, assertLessOrEqual } from "#std/assert";
import { findCycles, findUpwardImports, readImports, ROOMS } from "../tools/imports.ts";
import { ROOT, run } from "./process.ts";

describe("the imports of this project", () => {
  const imports = readImports(ROOT);

  test("are all read", () => {
    assertGreater(imports.size, 150);
    assert(imports.get("src/net/load.ts")?.includes("src/net/deno.ts"), "an import() is missed");
    assert(imports.get("src/net/net.ts")?.includes("src/kernel/address.ts"), "a type is missed");
  });

  test("never go to a room above", () => assertEquals(findUpwardImports(imports), []));

  test("have no cycle of files", () => assertEquals(findCycles(imports), []));
});

describe("docs/rooms.svg", () => {
  test("is current", async () => {
    const { status, stderr } = await run(["tools/rooms.ts", "--check"]);
    assertEquals([status, stderr], [0, ""]);
  });
});

describe("a project with wrong imports", () => {
  let root: string;

  before(() => {
    root = mkdtempSync(join(tmpdir(), "speedlimit-rooms-"));
    const files: Record<string, string> = {
      "src/text/units.ts": 'import type { Connection } from "../net/net.ts";\n',
      "src/net/net.ts": 'import { one } from "./one.ts";\n',
      "src/net/one.ts": 'export type { Two } from "./two.ts";\n',
      "src/net/two.ts": 'const { one } = await import("./one.ts");\n',
      "src/loose/file.ts": "",
      "bin/limit.ts": 'import { main } from "../src/text/units.ts";\n',
      "src/relay/serve.ts": 'import { run } from "../../bench/run.ts";\n',
      "bench/run.ts":
        ' * import { no } from "../tools/comment.ts";\n// from "../tools/comment.ts"\n',
    };
    for (const [name, text] of Object.entries(files)) {
      mkdirSync(dirname(join(root, name)), { recursive: true });
      writeFileSync(join(root, name), text);
    }
  });

  after(() => rmSync(root, { recursive: true, force: true }));

  test("is told each import that goes up, by both files", () => {
    assertEquals(findUpwardImports(readImports(root)).sort(), [
      "src/loose/file.ts is in no room",
      "src/relay/serve.ts imports bench/run.ts, which is above it",
      "src/text/units.ts imports src/net/net.ts, which is above it",
    ]);
  });

  test("is told its cycle, by its files", () => {
    assertEquals(findCycles(readImports(root)), [
      "src/net/one.ts -> src/net/two.ts -> src/net/one.ts",
    ]);
  });
});

describe("the first file of a room", () => {
  for (const { name, first } of ROOMS) {
    test(`src/${name}/${first} says what the room is for, in five lines`, () => {
      const text = readFileSync(join(ROOT, "src", name, first), "utf8");
      const header = /^\/\*\*\n([\s\S]*?)\n \*\//.exec(text)?.[1] ?? "";
      const lines = header.split("\n").map((line) => line.replace(/^ \* ?/, ""));
      assertLessOrEqual(lines.length, 5);
      assertEquals(lines.filter((line) => /^(Room|In|Out): \S/.test(line)).length, 3, header);
      assert(lines[0]!.startsWith("Room: "), header);
    });
  }
});
