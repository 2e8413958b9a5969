/** What strangers wrote is printed without what a terminal would obey. */
import { describe, test } from "node:test";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { assert, assertEquals, assertStringIncludes } from "#std/assert";
import { printable } from "../src/text/printable.ts";
import { LIMIT, limitOf, misbehaving, parse } from "./limiting.ts";
import { run } from "./process.ts";

describe("printable()", () => {
  const texts: Record<string, string> = {
    "plain text, é and 漢字 and 👍🏽": "plain text, é and 漢字 and 👍🏽",
    "\x1b[31mred\x1b[0m and \x9b1;2Hmoved": "red and moved",
    "\x1b]0;title\x07a\x1b]8;;http://x\x1b\\b\x9dc\x9cd": "abd",
    "\x1bP1$r\x1b\\a\x1b_b\x1b\\c\x1b^d\x07e\x1bXf\x1b\\g": "aceg",
    "\x1b]an unfinished string ends with its line\nnext": " next",
    "\x1b(0\x1b7\x1bc\x1b#8a": "a",
    "an escape that ends too soon \x1b": "an escape that ends too soon \ufffd",
    "\x1b[": "",
    "a\r\nb\tc\rd\x85e\u2028f\u2029g": "a b c d e f g",
    "a\0b\x07c\bd\x7fe\x80f": "a\ufffdb\ufffdc\ufffdd\ufffde\ufffdf",
    "a\u202eb\u2066c\u2069d\u200fe\u061cf": "abcdef",
    "\ud800": "\ufffd",
  };
  test("removes what terminals obey", () => {
    for (const [text, expected] of Object.entries(texts)) {
      assertEquals(printable(text), expected, JSON.stringify(text));
    }
  });

  test("leaves no control character of any text", () => {
    // deno-lint-ignore no-control-regex
    const controls = /[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]/;
    const pieces = [
      "\x1b",
      "[",
      "]",
      "31",
      "m",
      "\x07",
      "\x9b",
      "\x9c",
      "\n",
      "\r",
      "a",
      " ",
      "\u202e",
      "\\",
    ];
    let seed = 1;
    for (let i = 0; i < 20_000; i++) {
      let text = "";
      for (let n = 0; n < 12; n++) {
        seed = (seed * 48_271) % 2_147_483_647;
        text += pieces[seed % pieces.length];
      }
      const shown = printable(text);
      assert(!controls.test(shown), JSON.stringify([text, shown]));
      assertEquals(printable(shown), shown);
    }
  });
});

/** Control characters other than the breaks between our own lines. */
// deno-lint-ignore no-control-regex
const CONTROLS = /[\x00-\x09\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]/;
const HOSTILE = "\x1b]0;title\x07\u202eevil\x9b2J\r\n";

describe("a reader's words", () => {
  test("in JSON: its name and the line that explains its end", async () => {
    const ran = await limitOf([
      ...misbehaving("complains in control characters", "/dev/null"),
      HOSTILE,
    ]);
    const { reader, message } = parse(ran);
    assertEquals(message, "the reader exited with status 4 before it connected: error: éred");
    assert(reader.endsWith(" /dev/null evil "), JSON.stringify(reader));
    assert(!CONTROLS.test(ran.stdout + ran.stderr), JSON.stringify(ran));
  });

  test("in the table and on the page", async () => {
    const folder = mkdtempSync(join(tmpdir(), "speedlimit-printable-"));
    try {
      const page = join(folder, "page.html");
      const reader = [...misbehaving("complains in control characters", "/dev/null"), HOSTILE];
      const ran = await run([LIMIT, "--html", page, "--", ...reader]);
      assertEquals(ran.status, 1, ran.stderr);
      assertStringIncludes(ran.stdout, "error: éred\n");
      assert(!CONTROLS.test(ran.stdout + ran.stderr), JSON.stringify(ran));
      const html = readFileSync(page, "utf8");
      assertStringIncludes(html, "evil");
      for (const trace of ["\u202e", "\\u202e", "\x1b", "\\u001b", "\x9b", "2J"]) {
        assert(!html.includes(trace), JSON.stringify(trace));
      }
    } finally {
      rmSync(folder, { recursive: true });
    }
  });

  test("of a file with results, whoever wrote it", async () => {
    const folder = mkdtempSync(join(tmpdir(), "speedlimit-printable-"));
    try {
      const { stdout } = await limitOf(["no-such-program"]);
      const result = { ...JSON.parse(stdout), reader: HOSTILE, message: HOSTILE };
      const file = join(folder, "result.json");
      writeFileSync(file, JSON.stringify(result));
      const ran = await run(["bin/report.ts", file]);
      assertStringIncludes(ran.stdout, "evil");
      assert(!CONTROLS.test(ran.stdout + ran.stderr), JSON.stringify(ran));
    } finally {
      rmSync(folder, { recursive: true });
    }
  });
});
