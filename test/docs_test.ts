/**
 * README.md and docs/: links lead somewhere, options and policies are those of the code, and what is
 * shown as a program works.
 */
import { spawn, spawnSync } from "node:child_process";
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join, relative } from "node:path";
import { describe, test } from "node:test";
import { assert, assertEquals, assertGreater, assertLessOrEqual } from "#std/assert";
import { main as client } from "../src/cli/client.ts";
import { HelpRequest } from "../src/cli/command_line.ts";
import { main as limit } from "../src/cli/limit.ts";
import { main as map } from "../src/cli/map.ts";
import { main as plan } from "../src/cli/plan.ts";
import { main as queue } from "../src/cli/queue.ts";
import { main as report } from "../src/cli/report.ts";
import { main as serve } from "../src/cli/server.ts";
import { NumberedVerifier } from "../src/message/numbered.ts";
import { openDiskQueue } from "../src/queue/disk_queue.ts";
import { serve as startServer } from "../src/relay/serve.ts";
import { POLICY_NAMES } from "../src/send/overflow.ts";
import { ROOMS } from "../tools/imports.ts";
import { ROOT } from "./process.ts";
import { until, within } from "./within.ts";

const MOST_README_BYTES = 9216;
const MOST_README_ROWS = 8;

const read = (file: string): string => readFileSync(join(ROOT, file), "utf8");

/** All pages whose links are checked, from the project's folder on. */
const PAGES: readonly string[] = [
  ...["README.md", "CONTRIBUTING.md", "SECURITY.md"].filter((file) => existsSync(join(ROOT, file))),
  ...readdirSync(join(ROOT, "docs")).filter((file) => file.endsWith(".md")).sort()
    .map((file) => `docs/${file}`),
];

/** A page without its code blocks. */
function proseOf(markdown: string): string {
  return markdown.replace(/^```[\s\S]*?^```$/gm, "").replace(/(?<=\n\n)(?: {4}.*\n?)+/g, "");
}

/** The targets of links and pictures. */
function linksOf(markdown: string): string[] {
  const prose = proseOf(markdown).replace(/(`+)(?!`)[\s\S]*?\1/g, "");
  // Without its code, a link may have an empty text.
  return [...prose.matchAll(/\]\(([^()\s]+)\)/g)].map(([, target]) => target!);
}

/** The anchors of a page's headings, by GitHub's rules. */
function anchorsOf(markdown: string): Set<string> {
  const anchors = new Set<string>();
  const seen = new Map<string, number>();
  for (const [, heading] of proseOf(markdown).matchAll(/^#{1,6} +(.+?) *$/gm)) {
    const slug = heading!.replace(/\[([^\]]*)\]\([^)]*\)/g, "$1").toLowerCase()
      .replace(/[^\p{L}\p{M}\p{N}\p{Pc} -]/gu, "").replaceAll(" ", "-");
    const count = seen.get(slug) ?? 0;
    seen.set(slug, count + 1);
    anchors.add(count === 0 ? slug : `${slug}-${count}`);
  }
  return anchors;
}

const isExternal = (target: string): boolean => /^[a-z]+:/.test(target);

/** Where a relative link leads: a file from the project's folder on, and an anchor. */
function resolveLink(page: string, target: string): { file: string; anchor: string | undefined } {
  const [path, anchor] = target.split("#") as [string, string | undefined];
  const file = path === ""
    ? page
    : relative(ROOT, join(ROOT, dirname(page), decodeURIComponent(path)));
  return { file: file.replaceAll("\\", "/"), anchor };
}

/** One line for each link of a page that leads nowhere. */
function brokenLinks(page: string, markdown: string): string[] {
  return linksOf(markdown).filter((target) => !isExternal(target)).flatMap((target) => {
    const { file, anchor } = resolveLink(page, target);
    if (file.startsWith("..")) return [`${page}: ${target} is outside of the project`];
    if (file !== page && !existsSync(join(ROOT, file))) {
      return [`${page}: ${target}: there is no ${file}`];
    }
    if (anchor === undefined) return [];
    const text = file === page ? markdown : read(file);
    return anchorsOf(text).has(anchor) ? [] : [`${page}: ${target}: no such heading`];
  });
}

/** The rows under the head of each table. */
function tableLengths(markdown: string): number[] {
  return [...markdown.matchAll(/^\|.*\n\|[-:| ]+\|\n((?:\|.*(?:\n|$))*)/gm)]
    .map(([, rows]) => rows!.split("\n").filter((row) => row !== "").length);
}

/** A command's help, without a process. */
async function helpOf(
  main: (args: readonly string[]) => Promise<number>,
  args: readonly string[] = [],
): Promise<string> {
  try {
    await main([...args, "--help"]);
  } catch (error) {
    if (error instanceof HelpRequest) return error.message;
    throw error;
  }
  throw new Error("--help printed no help");
}

/** `--name` wherever it stands; not what follows a letter, as in a URL or an anchor. */
const optionsIn = (text: string): string[] => [
  ...new Set([...text.matchAll(/(?<![\w#-])--([a-z][a-z-]*[a-z])/g)].map(([, name]) => name!)),
];

/** The options that a help lists: not those that its texts mention. */
const optionsOfHelp = (help: string): string[] =>
  [...help.matchAll(/^ {2}--([a-z-]+)/gm)].map(([, name]) => name!);

const queueHelp = async (): Promise<string> => {
  const names = ["status", "check", "export", "repair"];
  return (await Promise.all(names.map((name) => helpOf(queue, [name])))).join("\n");
};

/** Each command with the page that has to name all of its options, and no others. */
const COMMANDS: readonly { page: string; help: () => Promise<string> }[] = [
  { page: "docs/limit.md", help: () => helpOf(limit) },
  { page: "docs/map.md", help: () => helpOf(map) },
  { page: "docs/plan.md", help: () => helpOf(plan) },
  { page: "docs/serve.md", help: () => helpOf(serve) },
  { page: "docs/client.md", help: () => helpOf(client) },
  { page: "docs/report.md", help: () => helpOf(report) },
  { page: "docs/operations.md", help: queueHelp },
];

/** Options of runtimes and other programs that are in a command of ours. */
const FOREIGN: readonly string[] = ["allow-ffi", "experimental-ffi", "no-warnings", "version"];

/** Options of the benchmarks and of their readers, as their sources name them. */
function benchOptions(): string[] {
  const files = readdirSync(join(ROOT, "bench")).filter((file) => file.endsWith(".ts"));
  const ours = files.flatMap((file) =>
    [...read(`bench/${file}`).matchAll(/\b(\w+): (?:flag|option|choice)\(/g)]
      .map(([, name]) => name!.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`))
  );
  return [...ours, ...optionsIn(read("bench/readers/paced.c"))];
}

/** The options in the first cells of the rows of tables of options. */
function tableOptions(markdown: string): string[] {
  const tables = markdown.matchAll(/^\| option \|.*\n\|[-:| ]+\|\n((?:\|.*(?:\n|$))*)/gm);
  return [...tables].flatMap(([, rows]) =>
    rows!.split("\n").flatMap((row) => optionsIn(row.replaceAll("\\|", "").split("|")[1] ?? ""))
  );
}

/** The defaults that are one word, as the help has them: `(default 8000)`. */
function defaultsOfHelp(help: string): Map<string, string> {
  const defaults = new Map<string, string>();
  for (const part of help.split(/^(?= {2}--[a-z])/m)) {
    const [, name] = /^ {2}--([a-z-]+)/.exec(part) ?? [];
    const [, word] = /\(default:? ([^\s;()]+)\)/.exec(part.replace(/\s+/g, " ")) ?? [];
    if (name !== undefined && word !== undefined) defaults.set(name, word);
  }
  return defaults;
}

/** What tables of options say of the default of each option that has a row of its own. */
function defaultsOfTables(markdown: string): Map<string, string> {
  const defaults = new Map<string, string>();
  for (const row of markdown.split("\n")) {
    const cells = row.replaceAll("\\|", "").split("|");
    const [name, ...others] = optionsIn(cells[1] ?? "");
    if (name === undefined || others.length > 0 || cells.length !== 5) continue;
    defaults.set(name, cells[2]!.replaceAll("`", "").trim());
  }
  return defaults;
}

describe("links of the documentation", () => {
  for (const page of [...PAGES, "CHANGELOG.md"]) {
    test(`${page}: each leads to a file, and to a heading in it`, () => {
      assertEquals(brokenLinks(page, read(page)), []);
    });
  }

  test("links that lead nowhere are found, and those in code are not links", () => {
    const page = "# A page\n\n## `x` of A-b, c!\n## Twice\n## Twice\n\n" +
      "[good](#x-of-a-b-c) [good](#twice-1) [good](README.md) [`good`](src) [out](https://x.org/)\n" +
      "`[code](nowhere.md)`\n\n```\n[code](nowhere.md)\n```\n\n    [code](nowhere.md)\n\n" +
      "[bad](nowhere.md) [bad](#nothing) [bad](#twice-2) [bad](README.md#nothing) [bad](../x)\n" +
      "![bad](no.svg)\n";
    assertEquals(brokenLinks("PAGE.md", page), [
      "PAGE.md: nowhere.md: there is no nowhere.md",
      "PAGE.md: #nothing: no such heading",
      "PAGE.md: #twice-2: no such heading",
      "PAGE.md: README.md#nothing: no such heading",
      "PAGE.md: ../x is outside of the project",
      "PAGE.md: no.svg: there is no no.svg",
    ]);
  });

  test("each file in docs/ is reached from README.md", () => {
    const reached = new Set<string>();
    const visit = (page: string) => {
      reached.add(page);
      if (!page.endsWith(".md") || !existsSync(join(ROOT, page))) return;
      for (const target of linksOf(read(page))) {
        if (isExternal(target)) continue;
        const { file } = resolveLink(page, target);
        if (!reached.has(file)) visit(file);
      }
    };
    visit("README.md");
    const files = readdirSync(join(ROOT, "docs")).map((file) => `docs/${file}`);
    assertGreater(files.length, 5);
    assertEquals(files.filter((file) => !reached.has(file)), []);
  });
});

describe("README.md", () => {
  test(`has at most ${MOST_README_BYTES} bytes`, () => {
    assertLessOrEqual(readFileSync(join(ROOT, "README.md")).length, MOST_README_BYTES);
  });

  test(`has no table of more than ${MOST_README_ROWS} rows`, () => {
    const lengths = tableLengths(read("README.md"));
    assertGreater(lengths.length, 0);
    assertEquals(lengths.filter((length) => length > MOST_README_ROWS), []);
    assertEquals(tableLengths("| a |\n|---|\n| 1 |\n| 2 |\n\n| b |\n|:-:|\n| 1 |"), [2, 1]);
  });
});

describe("files that the documentation names", () => {
  const ROOTS = /^(?:src|bench|test|tools|bin|docs)\//;

  for (const page of PAGES) {
    test(`${page}: each is there`, () => {
      const named = [...read(page).matchAll(/`([\w./-]+\.\w+)`/g)].map(([, file]) => file!);
      const wrong = named.filter((file) => ROOTS.test(file) && !existsSync(join(ROOT, file)));
      assertEquals(wrong, []);
    });
  }

  test("docs/design.md names the first file of each room", () => {
    const text = read("docs/design.md");
    const wrong = ROOMS.filter(({ name, first }) =>
      !text.includes(`**${name}** ([${first}](../src/${name}/${first}))`)
    );
    assertEquals(wrong, []);
  });
});

describe("options in the documentation", () => {
  for (const { page, help } of COMMANDS) {
    test(`${page} names each option of its command, and no other in its tables`, async () => {
      const text = read(page);
      const options = ["help", ...optionsOfHelp(await help())];
      // A page without a table of options names them in its text.
      const inTables = tableOptions(text);
      const named = inTables.length > 0 ? ["help", ...inTables] : optionsIn(text);
      assertEquals(options.filter((name) => !named.includes(name)), [], "not documented");
      const wrong = tableOptions(text).filter((name) => !options.includes(name));
      assertEquals(wrong, [], "documented, and no option");
    });
  }

  test("the defaults in tables are those of the commands", async () => {
    const wrong: string[] = [];
    let count = 0;
    for (const { page, help } of COMMANDS) {
      const documented = defaultsOfTables(read(page));
      for (const [name, word] of defaultsOfHelp(await help())) {
        const text = documented.get(name);
        if (text === undefined) continue;
        count++;
        // Others may be named beside it, for other cases.
        if (text === word || text.split(/[\s;,]+/).includes(word)) continue;
        wrong.push(`${page}: --${name}: the default is ${word}, and not ${text}`);
      }
    }
    assertGreater(count, 15);
    assertEquals(wrong, []);
  });

  test("each option that any page names is one of a command", async () => {
    const helps = await Promise.all(COMMANDS.map(({ help }) => help()));
    const known = new Set([...helps.flatMap(optionsOfHelp), ...benchOptions(), ...FOREIGN, "help"]);
    assertGreater(known.size, 50);
    const unknown = PAGES.flatMap((page) =>
      optionsIn(read(page)).filter((name) => !known.has(name)).map((name) => `${page}: --${name}`)
    );
    assertEquals(unknown, []);
    assertEquals(optionsIn("`--low` and `npm run x -- --dead-after 1s` [x](#a---b)"), [
      "low",
      "dead-after",
    ]);
    assert(!known.has("low") && !known.has("dead-after"));
  });

  test("docs/serve.md has one row for each overflow policy", () => {
    const [, rows] = /^\| `--overflow` \|.*\n\|[-|]+\|\n((?:\|.*\n)*)/m.exec(
      read("docs/serve.md"),
    )!;
    const names = [...rows!.matchAll(/^\| `([\w-]+)`/gm)].map(([, name]) => name!);
    assertEquals(names, POLICY_NAMES);
  });
});

const SIZE = 64;
const RATE = 100_000;
const SECONDS = 0.3;
/** Of the first life of the reader. Bytes. */
const STOPS_AFTER = 300_000;

/** What docs/protocol.md leaves to its reader: offset and data, kept together. */
const STORAGE = `
import os, sys
FILE = sys.argv[1]
LAST = int(sys.argv[2])
def load():
    if not os.path.exists(FILE + ".offset"):
        return ("-", "-")
    return tuple(open(FILE + ".offset").read().split())
def store(data, offset, name):
    with open(FILE, "ab") as file:
        file.write(data)
    with open(FILE + ".offset", "w") as file:
        file.write(f"{offset} {name}")
    if os.path.getsize(FILE) >= LAST:
        os._exit(7)
`;

/** Runs Python until it ends; its exit status. */
function python(file: string, args: readonly string[]): Promise<number | null> {
  const child = spawn("python3", [file, ...args], { stdio: ["ignore", "ignore", "inherit"] });
  const timer = setTimeout(() => child.kill("SIGKILL"), 20_000);
  return new Promise((resolve, reject) => {
    child.once("error", reject);
    child.once("exit", (status) => resolve(status));
  }).finally(() => clearTimeout(timer)) as Promise<number | null>;
}

describe("the reader in Python of docs/protocol.md", () => {
  test("its load() returns what its store() stored last", async (t) => {
    if (spawnSync("python3", ["--version"]).status !== 0) return t.skip("no python3");
    const [text] = /^ {4}import json, os\n(?: {4}.*\n)+/m.exec(read("docs/protocol.md"))!;
    const folder = mkdtempSync(join(tmpdir(), "speedlimit-docs-"));
    try {
      const checks = [
        "import sys",
        "os.chdir(sys.argv[1])",
        'assert load() == ("-", "-")',
        'store(b"", 64, "a")',
        'store(b"", 128, "b")',
        'assert load() == [128, "b"]',
      ];
      const program = join(folder, "storage.py");
      writeFileSync(program, text!.replace(/^ {4}/gm, "") + checks.join("\n") + "\n");
      assertEquals(await python(program, [folder]), 0);
    } finally {
      rmSync(folder, { recursive: true });
    }
  });

  test("stopped in the middle and started again, misses no message", async (t) => {
    if (spawnSync("python3", ["--version"]).status !== 0) return t.skip("no python3");
    const [, text] = /^```python\n([\s\S]*?)^```$/m.exec(read("docs/protocol.md"))!;
    const folder = mkdtempSync(join(tmpdir(), "speedlimit-docs-"));
    const queue = await openDiskQueue(join(folder, "queue"), { sync: "off" });
    let ends = 0;
    const server = await startServer({
      port: 0,
      message: { numbered: true, size: SIZE },
      rate: RATE,
      durationMs: SECONDS * 1000,
      overflow: "spill",
      queue,
      ack: "reader",
      readerId: "hello",
      onEvent: ({ event }) => {
        if (event === "closed") ends++;
      },
    });
    try {
      assert(text!.includes('("127.0.0.1", 8000)'));
      const program = join(folder, "reader.py");
      writeFileSync(program, STORAGE + text!.replace("8000", String(server.address.port)));
      const data = join(folder, "data");
      assertEquals(await python(program, [data, String(STOPS_AFTER)]), 7);
      await until("the end of its first connection", 5000, () => ends === 1);
      const begun = readFileSync(data).length;
      assertEquals(await python(program, [data, "1000000000"]), 0);
      await within("the server's end", 10_000, server.done);
      const bytes = readFileSync(data);
      assertGreater(bytes.length, begun);
      const verifier = new NumberedVerifier(SIZE);
      verifier.push(bytes);
      const { messages, missing, duplicates, outOfOrder, damaged } = verifier;
      assertEquals(
        { messages, missing, duplicates, outOfOrder, damaged },
        { messages: RATE * SECONDS, missing: 0, duplicates: 0, outOfOrder: 0, damaged: 0 },
      );
    } finally {
      await server.stop();
      await queue.close();
      rmSync(folder, { recursive: true });
    }
  });
});
