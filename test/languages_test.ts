/** The readers in other languages (bench/readers/languages/): that each works off all, at its rate. */
import { execFile } from "node:child_process";
import { promisify } from "node:util";
import { describe, test } from "node:test";
import { assertEquals, assertGreater, assertRejects } from "#std/assert";
import { kindCases } from "../bench/accuracy_kinds.ts";
import { languageReader, LANGUAGES } from "../bench/readers/languages.ts";
import { send, withServer } from "./peer.ts";
import { skip } from "./skip.ts";
import { within } from "./within.ts";

const LINES = 400;
const TEXT = new TextEncoder().encode(`${"x".repeat(63)}\n`.repeat(LINES));
/** Microseconds. */
const COST = 1000;
/** What it makes up for, and what it may be ahead without sleeping, rounded up. Seconds. */
const CREDIT = 0.025;

for (const language of LANGUAGES) {
  test(`each reader in ${language} works off all lines, and no faster than its rate`, async (t) => {
    // A compiler's first run takes long.
    const reader = await within("the compiler", 60_000, languageReader(language));
    if ("missing" in reader) return skip(t, reader.missing);
    const [program, ...words] = reader.command;
    const kinds = kindCases("languages").filter((each) => each.language === language);
    await Promise.all(kinds.map(({ kind }) => {
      let startMs = 0;
      return withServer(
        async (connection) => {
          startMs = performance.now();
          await send(connection, TEXT);
          await connection.closeWrite();
        },
        async ({ host, port }) => {
          const args = [...words, kind, host, String(port), String(COST)];
          const run = promisify(execFile)(program!, args, { timeout: 80_000 });
          const { stderr } = await within(`${language} ${kind}`, 20_000, run);
          assertEquals(stderr, `worked off ${LINES} lines\n`, kind);
          const seconds = (performance.now() - startMs) / 1000;
          assertGreater(seconds, LINES * COST / 1e6 - CREDIT, kind);
        },
      );
    }));
  });
}

describe("a reader in another language", () => {
  test("is skipped where a program that it needs is not installed", async () => {
    const missing = Object.assign(new Error("spawn ENOENT"), { code: "ENOENT" });
    const found = await Promise.all(
      LANGUAGES.map((language) => languageReader(language, () => Promise.reject(missing))),
    );
    assertEquals(
      found,
      ["go", "java", "erl", "rustc"].map((program) => ({ missing: `no ${program}` })),
    );
  });

  test("whose runtime is installed but not its compiler is skipped, too", async () => {
    const missing = Object.assign(new Error("spawn ENOENT"), { code: "ENOENT" });
    const runs = ([program]: readonly string[]) =>
      program === "java" ? Promise.resolve("java 0 of this test\n") : Promise.reject(missing);
    assertEquals(await languageReader("java", runs), { missing: "no javac" });
  });

  test("that does not compile is an error, which says why", async () => {
    const runs = ([, word]: readonly string[]) =>
      word === "version" ? Promise.resolve("go version 0 of this test\n") : Promise.reject(
        new Error("Command failed: go build\n# lines\n./lines.go:3: undefined: x\n"),
      );
    const expected = "cannot compile lines.go with go: ./lines.go:3: undefined: x";
    await assertRejects(() => languageReader("go", runs), Error, expected);
  });
});
