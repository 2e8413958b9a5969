/** A server whose disk fails it while it spills, or that is stopped: real processes, a real disk, a reader that checks all. */
import { describe, test, type TestContext } from "node:test";
import { spawnSync } from "node:child_process";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { assert, assertEquals, assertGreater, assertMatch } from "#std/assert";
import type { DrainResult } from "../src/read/drain.ts";
import { queueStatus } from "../src/queue/inspect.ts";
import { loadSqlite } from "../src/queue/sqlite.ts";
import type { ServeEvent } from "../src/relay/serve_event.ts";
import { type Program, run, type RunOptions, SERVE_PERMISSIONS, start } from "./process.ts";
import { setTimeout as sleep } from "node:timers/promises";
import { numbered, SIZE } from "./relaying.ts";
import { skip } from "./skip.ts";
import { until, within } from "./within.ts";

const MIB = 1 << 20;
const MS = 20_000;
/** Of a flood; messages a second. */
const RATE = 20e6 / SIZE;
/** What the source has: far more than the disk. */
const MESSAGES = 40 * MIB / SIZE;

interface Stage {
  /** A folder on a disk with room for `size` bytes, or under that limit. */
  disk: string;
  /** Numbered messages, elsewhere. */
  feed: string;
  /** Starts the server on its queue there. */
  serve(...args: string[]): Promise<{ server: Program; port: number }>;
}

/** Ends all that it started, and takes the folder away. */
async function staged(
  use: (stage: Stage) => Promise<void>,
  options: RunOptions = {},
  mount?: (disk: string) => boolean,
  t?: TestContext,
): Promise<void> {
  const folder = mkdtempSync(join(tmpdir(), "speedlimit-disk-"));
  const disk = join(folder, "disk");
  const feed = join(folder, "feed");
  const programs: Program[] = [];
  mkdirSync(disk);
  if (mount !== undefined && !mount(disk)) {
    rmSync(folder, { recursive: true });
    return skip(t!, "no disk can be mounted here");
  }
  try {
    writeFileSync(feed, numbered(0, MESSAGES));
    await use({
      disk,
      feed,
      async serve(...args) {
        const spill = ["--overflow", "spill", "--spill", join(disk, "queue"), "--backlog", "1M"];
        const server = start(["server.ts", "--port", "0", ...spill, ...args], {
          timeoutMs: 60_000,
          permissions: SERVE_PERMISSIONS,
          ...options,
        });
        programs.push(server);
        const [, port] = await within("listening", MS, server.saw(/listening.*?:(\d+)[ }]/));
        return { server, port: Number(port) };
      },
    });
  } finally {
    for (const program of programs) program.kill("SIGKILL");
    await within("all ends", MS, Promise.all(programs.map(({ ended }) => ended)));
    if (mount !== undefined) spawnSync("umount", ["-l", disk]);
    rmSync(folder, { recursive: true, force: true });
  }
}

/** On a small disk of its own. */
const onSmallDisk = (t: TestContext, use: (stage: Stage) => Promise<void>) =>
  staged(use, {}, (disk) => {
    const mount = ["-t", "tmpfs", "-o", "size=16m", "tmpfs", disk];
    return spawnSync("mount", mount).status === 0;
  }, t);

/** Reads all there is, and checks each message. */
const read = (port: number, ...args: string[]) => readPlainly(port, "--ack", ...args);

/** Without acknowledgements: such a reader is not disconnected at a gap. */
async function readPlainly(port: number, ...args: string[]): Promise<DrainResult> {
  const all = [`127.0.0.1:${port}`, "--verify", "--json", ...args];
  const { stdout } = await run(["client.ts", ...all], { timeoutMs: 40_000 });
  return JSON.parse(stdout);
}

/** Some 20 MB/s at most. */
const SLOW = ["--work", "3ms"];

const FILE = ["--frame", `fixed:${SIZE}`, "--source"];
const FULL = /^reader: the disk is full: the source has to wait$/m;
const ROOM = /^reader: the queue has room again$/m;

/** It has ended by itself, in order, after all of them. */
async function assertDone(server: Program): Promise<void> {
  const { status, stdout } = await within("the server's end", MS, server.ended);
  assertEquals(status, 0);
  assertMatch(stdout, new RegExp(`\\ndone: \\d readers, ${MESSAGES} messages\\n$`));
}

function assertWhole({ ended, verified }: DrainResult): void {
  const { missing, duplicates, outOfOrder, damaged, messages } = verified!;
  assertEquals({ ended, messages, missing, duplicates, outOfOrder, damaged }, {
    ended: "eof",
    messages: MESSAGES,
    missing: 0,
    duplicates: 0,
    outOfOrder: 0,
    damaged: 0,
  });
}

describe("a disk that gets full while a server spills", () => {
  test("block: the source waits, and goes on when others make room, and when its reader does", (t) =>
    onSmallDisk(t, async ({ disk, feed, serve }) => {
      writeFileSync(join(disk, "other"), new Uint8Array(6 * MIB));
      const { server, port } = await serve(...FILE, feed);
      await within("full", MS, server.saw(FULL));
      rmSync(join(disk, "other"));
      await within("room", MS, server.saw(ROOM));
      await within("full again", MS, server.saw(/disk is full[^]*again[^]*disk is full/));
      assertWhole(await read(port));
      await assertDone(server);
      assertEquals(
        server.stderr.split("\n").filter((line) => !FULL.test(line) && !ROOM.test(line)),
        [""],
      );
    }));

  test("block: it may be stopped then, and go on with more room", (t) =>
    onSmallDisk(t, async ({ disk, feed, serve }) => {
      const first = await serve(...FILE, feed);
      await within("full", MS, first.server.saw(FULL));
      first.server.kill("SIGINT");
      assertEquals((await within("its end", MS, first.server.ended)).status, 130);
      assertEquals(spawnSync("mount", ["-o", "remount,size=64m", disk]).status, 0);
      const { server, port } = await serve(...FILE, feed);
      assertWhole(await read(port));
      await assertDone(server);
      assertEquals(server.stderr, "");
    }));

  test("block: a limit of the file's size is the same", async (t) => {
    if (spawnSync("prlimit", ["--version"]).error !== undefined) {
      return skip(t, "there is no prlimit here");
    }
    await staged(async ({ feed, serve }) => {
      const { server, port } = await serve(...FILE, feed);
      await within("full", MS, server.saw(FULL));
      assertWhole(await read(port, ...SLOW));
      assertMatch(server.stderr, ROOM);
      await assertDone(server);
    }, { under: ["prlimit", `--fsize=${16 * MIB}`] });
  });

  test("drop-newest: as many are missing as are counted, and all that was stored comes", (t) =>
    onSmallDisk(t, async ({ serve }) => {
      const flood = [
        "--rate",
        "20MB/s",
        "--duration",
        "6s",
        "--spill-full",
        "drop-newest",
        "--json",
      ];
      const numbers = ["--message", "numbered", "--size", String(SIZE)];
      // Segments are shorter with a limit: room comes sooner.
      const { server, port } = await serve(...flood, ...numbers, "--spill-max", "32M");
      await within("full", MS, server.saw(/"queue-full".*"why":"disk","then":"drop-newest"/));
      // Most of what comes now finds no room: nobody reads.
      await sleep(500);
      const { verified, ended } = await readPlainly(port);
      assertEquals((await within("the server's end", MS, server.ended)).status, 0);
      const events: ServeEvent[] = server.stdout.trimEnd().split("\n").map((line) =>
        JSON.parse(line)
      );
      const { messages, dropped } = events.at(-1) as ServeEvent & { event: "done" };
      const { missing, duplicates, outOfOrder, damaged } = verified!;
      assertEquals([ended, duplicates, outOfOrder, damaged], ["eof", 0, 0, 0]);
      assertGreater(dropped, 0.2 * RATE);
      // Those that were dropped in the end nobody can miss.
      assert(missing <= dropped, `${missing} are missing, ${dropped} were dropped`);
      assertEquals(verified!.messages, messages);
      // What is dropped while the reader is being connected is counted twice.
      assert(messages + dropped >= 6 * RATE, `${messages} and ${dropped}`);
      const room = events.filter(({ event }) => event === "queue-room") as { dropped: number }[];
      assertGreater(room.length, 0);
      assertGreater(room.reduce((sum, event) => sum + event.dropped, 0), 0.2 * RATE);
    }));

  test("drop-oldest: the newest messages come, and the gap is told of", (t) =>
    onSmallDisk(t, async ({ serve }) => {
      const flood = [
        "--rate",
        "20MB/s",
        "--duration",
        "3s",
        "--spill-full",
        "drop-oldest",
        "--json",
      ];
      const numbers = ["--message", "numbered", "--size", String(SIZE)];
      const { server, port } = await serve(...flood, ...numbers, "--spill-max", "64M");
      await within("full", MS, server.saw(/"queue-full".*"why":"disk","then":"drop-oldest"/));
      await within("a gap", MS, server.saw(/"event":"gap"/));
      // All of it is stored, or dropped.
      await within("the source's end", MS, server.saw(/"source".*"ended"/));
      const { verified, ended } = await readPlainly(port);
      assertEquals((await within("the server's end", MS, server.ended)).status, 0);
      const { missing, duplicates, outOfOrder, damaged, messages } = verified!;
      assertEquals([ended, duplicates, outOfOrder, damaged], ["eof", 0, 0, 0]);
      assertGreater(missing, 0.2 * RATE);
      // The last one came.
      assertEquals(missing + messages, 3 * RATE);
      const gaps = server.stdout.trimEnd().split("\n").map((line) => JSON.parse(line) as ServeEvent)
        .flatMap((event) => event.event === "gap" ? [event] : []);
      assertEquals(gaps.reduce((sum, { from, to }) => sum + to - from, 0), missing * SIZE);
      assertEquals(gaps.filter(({ why }) => why !== "drop-oldest"), []);
    }));

  for (const [max, of] of [["1M", MIB], ["100k", 100_000]] as const) {
    test(`block: so it is with a limit of ${max}, whatever room the disk has`, () =>
      staged(async ({ disk, feed, serve }) => {
        const { server, port } = await serve(...FILE, feed, "--spill-max", max);
        const full = /^reader: the queue has reached --spill-max: the source has to wait$/m;
        await within("full", MS, server.saw(full));
        const { bytes } = await queueStatus(await loadSqlite(), join(disk, "queue"));
        assert(bytes <= of && bytes > 0.5 * of, `${bytes} bytes`);
        assertWhole(await read(port));
        await assertDone(server);
      }));
  }
});

test("a server whose queue is removed ends with one line", () =>
  staged(async ({ disk, serve }) => {
    const { server } = await serve("--rate", "1MB/s");
    await within(
      "spilling",
      MS,
      server.saw(/^reader: is not connected: storing to disk from now on$/m),
    );
    await until("the queue is gone", MS, () => {
      try {
        rmSync(join(disk, "queue"), { recursive: true, force: true });
        return true;
      } catch {
        // The server has just begun a segment in it.
        return false;
      }
    });
    assertEquals((await within("its end", MS, server.ended)).status, 1);
    assertMatch(
      server.stderr,
      /^(reader: .*\n)*server: .*(was removed while|a file or folder is missing).*\n$/,
    );
  }));

test("a server and a reader that are stopped in turn (SIGSTOP) lose nothing", () =>
  staged(async ({ feed, serve }) => {
    const { server, port } = await serve(...FILE, feed, "--ack", "reader", "--json");
    const reader = start(
      ["client.ts", `127.0.0.1:${port}`, "--ack", "--verify", "--json", ...SLOW],
      { timeoutMs: 40_000 },
    );
    try {
      await within("a reader", MS, server.saw(/"event":"reader"/));
      for (let round = 1; round <= 2; round++) {
        server.kill("SIGSTOP");
        await sleep(300);
        reader.kill("SIGSTOP");
        server.kill("SIGCONT");
        await sleep(300);
        reader.kill("SIGCONT");
      }
      const { stdout } = await within("the reader's end", 40_000, reader.ended);
      assertWhole(JSON.parse(stdout));
    } finally {
      reader.kill("SIGKILL");
      await within("its end", MS, reader.ended);
    }
    assertEquals((await within("the server's end", MS, server.ended)).status, 0);
  }));
