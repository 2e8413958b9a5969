/** Segments that are no longer what was stored: the rest is delivered, and nothing is lost silently. */
import { describe, test } from "node:test";
import {
  appendFileSync,
  copyFileSync,
  cpSync,
  existsSync,
  lstatSync,
  mkdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { Buffer } from "node:buffer";
import { dirname, join } from "node:path";
import zlib from "node:zlib";
import {
  assert,
  assertEquals,
  assertGreater,
  assertMatch,
  assertRejects,
  assertStringIncludes,
} from "#std/assert";
import { checkQueue, queueStatus } from "../src/queue/inspect.ts";
import { openDiskQueue } from "../src/queue/disk_queue.ts";
import { type Damage, type Log, QueueError } from "../src/queue/queue.ts";
import { FILE_HEADER, RECORD_HEADER } from "../src/queue/segment_format.ts";
import { loadSqlite } from "../src/queue/sqlite.ts";
import { run } from "./process.ts";
import {
  asKilled,
  assertBatch,
  batchAt,
  fill,
  flip,
  hash,
  hashes,
  offsetsOf,
  segmentFiles,
  withFolder,
  withOpen,
} from "./queue_batches.ts";
import { within } from "./within.ts";

const MS = 10_000;
const SHORT = { maxBytes: 512 * 1024 };
/** Three of these fill one of the shortest segments. */
const LENGTH = 25_000;
const COUNT = 15;
const RECORD = RECORD_HEADER + LENGTH;
const ALL = Array.from({ length: COUNT }, (_, i) => i * LENGTH);
const sqlite = await loadSqlite();

/** Makes a queue of five segments with three batches each, once; `use` gets a copy of it each time. */
async function withQueues(
  use: (copy: () => { folder: string; stream: string; files: string[] }) => Promise<void>,
): Promise<void> {
  await withFolder(async (parent) => {
    const made = join(parent, "made");
    const stream = await withOpen(made, async (queue) => {
      const log = await queue.openLog("");
      await log.openCursor("a", 0);
      for (let i = 0; i < COUNT; i++) await fill(log, 1, LENGTH);
      assertEquals(log.segments, 5);
      const other = await queue.openLog("other");
      await other.openCursor("other", 0);
      await fill(other, 3, LENGTH);
      return log.stream;
    }, SHORT);
    let copies = 0;
    await use(() => {
      const folder = join(parent, `copy ${++copies}`);
      cpSync(made, folder, { recursive: true });
      return { folder, stream, files: segmentFiles(folder, { stream }) };
    });
  });
}

interface Opened {
  log: Log;
  offsets: number[];
  damages: Damage[];
}

/** Opens a hurt queue and reads all there is; it must then work as any other. */
async function readAll(folder: string, use: (opened: Opened) => void): Promise<void> {
  const damages: Damage[] = [];
  await withOpen(folder, async (queue) => {
    const log = await queue.openLog("");
    const offsets = await offsetsOf(log, LENGTH);
    for (const { key, offset, bytes, reason } of damages) {
      assertEquals([key, Number.isSafeInteger(offset), bytes > 0], ["", true, true]);
      assertMatch(reason, /^[^\n]+$/);
    }
    use({ log, offsets, damages });
    // The other streams are not concerned.
    const other = await queue.openLog("other");
    assertEquals(await offsetsOf(other, LENGTH), [0, LENGTH, 2 * LENGTH]);
    const next = Math.max(log.end, COUNT * LENGTH);
    await log.append(batchAt(next, LENGTH));
    assertBatch(await log.read(next), next, LENGTH);
  }, { sync: "off", onDamage: (damage) => damages.push(damage) });
}

describe("a bit that has changed", () => {
  const PLACES: [what: string, at: number, mask: number][] = [
    ["the magic", 0, 1],
    ["its CRC", 5, 0x80],
    ["a high bit of its length", 8, 0x20],
    ["a middle bit of its length", 9, 1],
    ["a low bit of its length", 11, 4],
    ["its messages", 15, 1],
    ["a high bit of its offset", 18, 0x40],
    ["the highest bit of its offset", 16, 0x80],
    ["a low bit of its offset", 22, 0x10],
    ["its time", 31, 2],
    ["its first byte", 32, 1],
    ["a byte in the middle", 32 + LENGTH / 2, 0x80],
    ["its last byte", RECORD - 1, 8],
  ];
  for (const [name, segment] of [["first", 0], ["middle", 2], ["last", 4]] as const) {
    test(`in a record of the ${name} segment takes this one, and is told of`, () =>
      withQueues(async (copy) => {
        for (const [i, [what, at, mask]] of PLACES.entries()) {
          for (const record of new Set([i % 3, segment === 4 ? 2 : 0])) {
            const { folder, files } = copy();
            flip(files[segment]!, FILE_HEADER + record * RECORD + at, mask);
            const lost = (segment * 3 + record) * LENGTH;
            const checked = await checkQueue(sqlite, folder);
            assertEquals([what, checked.damages.length, checked.batches], [what, 1, COUNT + 2]);
            await readAll(folder, ({ log, offsets, damages }) => {
              const rest = ALL.filter((offset) => offset !== lost);
              assertEquals([what, record, offsets], [what, record, rest]);
              assertEquals([what, damages.length], [what, 1]);
              if (!what.includes("of its offset")) assertEquals(damages[0]!.offset, lost);
              assertEquals(log.end, Math.max(...rest) + LENGTH);
            });
            rmSync(folder, { recursive: true });
          }
        }
      }));
  }

  test("in the header of a file takes no record, and is told of", () =>
    withQueues(async (copy) => {
      for (const segment of [0, 2, 4]) {
        for (const at of [0, 7, 11, 14, 16, 23]) {
          const { folder, files } = copy();
          flip(files[segment]!, at);
          await readAll(folder, ({ offsets, damages }) => {
            assertEquals(offsets, ALL);
            assertEquals(damages.map(({ offset, bytes }) => [offset, bytes]), [
              [segment * 3 * LENGTH, FILE_HEADER],
            ]);
            assertMatch(damages[0]!.reason, /does not begin as a segment|the CRC of its header/);
          });
          rmSync(folder, { recursive: true });
        }
      }
    }));

  test("is found by `check`, left out of an export that says so, and needs no repair", () =>
    withQueues(async (copy) => {
      const { folder, files } = copy();
      flip(files[0]!, 1000);
      flip(files[2]!, FILE_HEADER + RECORD + 9);
      flip(files[4]!, -1);
      const before = hashes(folder);
      const check = await run(["bin/queue.ts", "check", folder]);
      assertEquals([check.status, check.stderr], [1, ""]);
      const lines = check.stdout.trimEnd().split("\n");
      assertEquals(lines.length, 4);
      for (const [i, lost] of [0, 7, 14].entries()) {
        assertMatch(
          lines[i]!,
          new RegExp(`^damaged: 25032 bytes from offset ${lost * LENGTH} on: `),
        );
      }
      assertEquals(lines[3], "intact: 15 batches, 375 kB");
      const repair = await run(["bin/queue.ts", "repair", folder, "--apply"]);
      assertEquals([repair.status, repair.stderr], [0, ""]);
      assertStringIncludes(repair.stdout, "nothing to repair: a server skips what is damaged");
      const out = `${folder}.out`;
      const args = ["export", folder, "--reader", "a", "--out", out];
      const { status, stderr } = await run(["bin/queue.ts", ...args]);
      assertEquals(status, 0, stderr);
      for (const lost of [0, 7, 14]) {
        assertMatch(
          stderr,
          new RegExp(`^missing: \\d+ bytes from offset ${lost * LENGTH} on: `, "m"),
        );
      }
      assertMatch(stderr, /\nexported 12 batches, 300 kB\n$/);
      assertEquals(statSync(out).size, 12 * LENGTH);
      assertEquals(hashes(folder), before, "it was changed");
    }));
});

describe("a segment", () => {
  test("that is cut short keeps what is before, and the other segments", () =>
    withQueues(async (copy) => {
      for (const segment of [0, 2, 4]) {
        for (
          const [size, records] of [
            [0, 0],
            [10, 0],
            [FILE_HEADER, 0],
            [FILE_HEADER + 5, 0],
            [FILE_HEADER + RECORD - 1, 0],
            [FILE_HEADER + RECORD, 1],
            [FILE_HEADER + RECORD + 3, 1],
            [FILE_HEADER + 2 * RECORD + 32, 2],
            [FILE_HEADER + 3 * RECORD - 1, 2],
          ] as const
        ) {
          const { folder, files } = copy();
          truncateSync(files[segment]!, size);
          await readAll(folder, ({ log, offsets, damages }) => {
            const rest = ALL.filter((at) => {
              const index = at / LENGTH - segment * 3;
              return index < records || index >= 3;
            });
            assertEquals([segment, size, offsets], [segment, size, rest]);
            assertEquals(log.end, rest.at(-1)! + LENGTH);
            const whole = (size - FILE_HEADER) % RECORD === 0 || size === 0;
            const reported = segment === 4 || !whole;
            assertEquals([segment, size, damages.length > 0], [segment, size, reported]);
          });
          rmSync(folder, { recursive: true });
        }
      }
    }));

  test("at the end is no damage where a kill can have left it so", () =>
    withQueues(async (copy) => {
      for (const size of [0, FILE_HEADER, FILE_HEADER + 5, FILE_HEADER + 2 * RECORD + 32]) {
        const { folder, files } = copy();
        asKilled(folder);
        truncateSync(files[4]!, size);
        assertEquals((await checkQueue(sqlite, folder)).damages, []);
        await readAll(folder, ({ damages }) => assertEquals([size, damages], [size, []]));
      }
    }));

  const LOST: [what: string, from: number, to: number, lose: (files: string[]) => void][] = [
    ["the first is deleted", 0, 3, (files) => rmSync(files[0]!)],
    ["one in the middle is deleted", 6, 9, (files) => rmSync(files[2]!)],
    ["two in the middle are deleted", 3, 9, (files) => files.slice(1, 3).forEach((f) => rmSync(f))],
    ["one in the middle is emptied", 6, 9, (files) => truncateSync(files[2]!)],
    ["one in the middle ends early", 7, 9, (files) => {
      truncateSync(files[2]!, FILE_HEADER + RECORD);
    }],
    ["the last ends early", 13, 15, (files) => truncateSync(files[4]!, FILE_HEADER + RECORD)],
    ["the last is cut in a record", 13, 15, (files) => {
      truncateSync(files[4]!, FILE_HEADER + RECORD + 100);
    }],
    ["the last is emptied", 12, 15, (files) => truncateSync(files[4]!)],
    ["the last is deleted", 12, 15, (files) => rmSync(files[4]!)],
    ["all are deleted", 0, 15, (files) => files.forEach((file) => rmSync(file))],
    ["the folder is deleted", 0, 15, (files) => rmSync(dirname(files[0]!), { recursive: true })],
  ];
  for (const [what, from, to, lose] of LOST) {
    test(`is missed by check, and by a server at the ends, when ${what}`, () =>
      withQueues(async (copy) => {
        const { folder, files } = copy();
        lose(files);
        const gone = [from * LENGTH, (to - from) * LENGTH];
        const { damages } = await checkQueue(sqlite, folder);
        assertEquals(damages.map(({ offset, bytes }) => [offset, bytes]), [gone]);
        assertMatch(damages[0]!.reason, /missing/);
        const isAtEnd = from === 0 || to === COUNT;
        const told: Damage[] = [];
        // The second time it is as it was left.
        for (const expected of [isAtEnd ? [gone[0]] : [], []]) {
          await withOpen(folder, (queue) => queue.openLog(""), {
            onDamage: (damage) => told.push(damage),
          });
          assertEquals(told.splice(0).map(({ offset }) => offset), expected);
        }
        if (isAtEnd) assertEquals((await checkQueue(sqlite, folder)).damages, []);
      }));
  }

  test("is not missed where nothing was stored, or the oldest was deleted for others", () =>
    withFolder(async (parent) => {
      const folder = join(parent, "queue");
      await withOpen(folder, async (queue) => {
        const log = await queue.openLog("");
        await log.openCursor("a", 0);
        for (let i = 0; i < 7; i++) {
          // As messages that were dropped.
          await log.append(batchAt(2 * i * LENGTH, LENGTH));
        }
        await log.dropOldest();
      }, SHORT);
      assertEquals((await checkQueue(sqlite, folder)).damages, []);
      await withOpen(folder, async (queue) => {
        assertEquals((await queue.openLog("")).start > 0, true);
      }, { onDamage: ({ reason }) => assertEquals(reason, "none") });
    }));

  test("is not missed where it was about to be deleted when the queue was closed", () =>
    withQueues(async (copy) => {
      for (const round of [1, 2, 3]) {
        const { folder } = copy();
        const queue = await openDiskQueue(folder);
        const log = await queue.openLog("");
        log.cursors[0]!.release(COUNT * LENGTH);
        const settled = log.settled();
        await within("close", MS, queue.close());
        await within("settled", MS, settled);
        const dropped = await log.dropOldest();
        assertEquals([round, (await checkQueue(sqlite, folder)).damages], [round, []]);
        assertEquals(dropped, log.start);
      }
    }));

  test("that an earlier version made, without the end of the one before, is read as it is", () =>
    withQueues(async (copy) => {
      const { folder, files } = copy();
      for (const file of files.slice(0, 3)) {
        const bytes = readFileSync(file);
        const header = Buffer.alloc(24);
        bytes.copy(header, 0, 0, 24);
        header.writeUInt32BE(2, 8);
        const crc = zlib.crc32(header.subarray(16), zlib.crc32(header.subarray(8, 12)));
        header.writeUInt32BE(crc, 12);
        writeFileSync(file, Buffer.concat([header, bytes.subarray(FILE_HEADER)]));
      }
      assertEquals((await checkQueue(sqlite, folder)).damages, []);
      await readAll(folder, ({ offsets, damages }) => assertEquals([offsets, damages], [ALL, []]));
    }));

  test("that cannot be opened is no reason to forget what was stored", () =>
    withQueues(async (copy) => {
      const { folder, files } = copy();
      rmSync(files[4]!);
      const link = join(dirname(files[0]!), "0000000000000007.segment");
      symlinkSync("/nowhere", link);
      await assertRejects(() => within("open", MS, openDiskQueue(folder)), QueueError);
      rmSync(link);
      assertEquals((await checkQueue(sqlite, folder)).damages.length, 1);
    }));

  test("that is missing is a gap", () =>
    withQueues(async (copy) => {
      for (const segment of [0, 2, 4]) {
        const { folder, files } = copy();
        rmSync(files[segment]!);
        const rest = ALL.filter((at) => Math.floor(at / LENGTH / 3) !== segment);
        if (segment === 2) {
          const args = [
            "bin/queue.ts",
            "export",
            folder,
            "--reader",
            "a",
            "--out",
            `${folder}.out`,
          ];
          const { stderr } = await run(args);
          assertMatch(stderr, /^missing: 75000 bytes from offset 150000 on: they are not stored$/m);
        }
        await readAll(folder, ({ log, offsets }) => {
          assertEquals(offsets, rest);
          assertEquals([log.start, log.end], [rest[0]!, rest.at(-1)! + LENGTH]);
        });
      }
    }));

  test("of another stream, or with other bytes, is not delivered", () =>
    withQueues(async (copy) => {
      const hurts: [string, (file: string, other: string) => void][] = [
        ["another stream's", (file, other) => copyFileSync(other, file)],
        ["zeros", (file) => writeFileSync(file, new Uint8Array(70_000))],
        ["text", (file) => writeFileSync(file, "rcrd, and other text\n".repeat(3000))],
      ];
      for (const [what, hurt] of hurts) {
        for (const segment of [0, 2, 4]) {
          const { folder, files } = copy();
          const status = await queueStatus(sqlite, folder);
          const { stream } = status.streams.find(({ key }) => key === "other")!;
          hurt(files[segment]!, segmentFiles(folder, { stream })[0]!);
          await readAll(folder, ({ offsets, damages }) => {
            const rest = ALL.filter((at) => Math.floor(at / LENGTH / 3) !== segment);
            assertEquals([what, segment, offsets], [what, segment, rest]);
            // Its header, and all that follows.
            assertEquals([what, segment, damages.length], [what, segment, 2]);
            const bytes = damages.reduce((sum, damage) => sum + damage.bytes, 0);
            assertGreater(bytes, 60_000);
          });
          rmSync(folder, { recursive: true });
        }
      }
    }));

  test("in the place of another one, or twice, is not delivered twice", () =>
    withQueues(async (copy) => {
      const { folder, files } = copy();
      copyFileSync(files[1]!, files[3]!);
      await readAll(folder, ({ offsets, damages }) => {
        assertEquals(offsets, ALL.filter((at) => Math.floor(at / LENGTH / 3) !== 3));
        assertGreater(damages.length, 0);
      });
    }));

  test("with more bytes after its records is cut, and told of", () =>
    withQueues(async (copy) => {
      for (const segment of [0, 2, 4]) {
        for (const bytes of [new Uint8Array(1), new Uint8Array(100_000), "rcr?".repeat(5000)]) {
          const { folder, files } = copy();
          appendFileSync(files[segment]!, bytes);
          await readAll(folder, ({ offsets, damages }) => {
            assertEquals(offsets, ALL);
            assertEquals(damages.map((damage) => [damage.offset, damage.bytes]), [
              [(segment * 3 + 3) * LENGTH, bytes.length],
            ]);
          });
          rmSync(folder, { recursive: true });
        }
      }
    }));
});

describe("what is in the folder of a stream", () => {
  test("and is none of its segments is left alone", () =>
    withQueues(async (copy) => {
      const { folder, stream } = copy();
      const names = [
        ...["x", "0.segment", "0000000000000000.segment.bak", "000000000000000a.segment", "%"],
        ...["\u202e.segment", "key2"],
      ].map((name) => join(folder, stream, name));
      for (const name of names) writeFileSync(name, "something else");
      mkdirSync(join(folder, stream, "a folder"));
      mkdirSync(join(folder, "another folder"));
      writeFileSync(join(folder, "a file"), "something else");
      writeFileSync(join(folder, "0123456789abcdef"), "no folder");
      await readAll(folder, ({ offsets, damages }) => assertEquals([offsets, damages], [ALL, []]));
      for (const name of names) assertEquals(readFileSync(name, "utf8"), "something else");
    }));

  /** Nothing opens it, and nothing is changed; then it can be put right. */
  async function assertRefused(folder: string, path: string, message: RegExp): Promise<void> {
    const error = await assertRejects(
      () => within("open", MS, openDiskQueue(folder)),
      QueueError,
    );
    assertMatch(error.message, message);
    assert(!error.message.includes("\n"), "more than one line");
    await assertRejects(() => checkQueue(sqlite, folder), QueueError);
    rmSync(path, { recursive: true });
    await readAll(folder, ({ damages }) => {
      // What was in the place of a segment is gone, and with it the segment.
      for (const { reason } of damages) assertMatch(reason, /is missing$/);
    });
  }

  test("may not be a symbolic link, which is not followed", () =>
    withQueues(async (copy) => {
      for (const segment of [0, 2, 4]) {
        const { folder, files } = copy();
        const elsewhere = `${folder}.elsewhere`;
        renameSync(files[segment]!, elsewhere);
        symlinkSync(elsewhere, files[segment]!);
        const before = hash(elsewhere);
        if (segment === 2) {
          for (const args of [["status"], ["check"], ["repair"], ["export", "--reader", "a"]]) {
            const [command, ...rest] = args;
            const { status, stderr } = await run(["bin/queue.ts", command!, folder, ...rest]);
            assertEquals([status, stderr.trimEnd().split("\n").length], [1, 1], stderr);
            assertMatch(stderr, /\.segment is not a regular file$/m);
          }
        }
        await assertRefused(folder, files[segment]!, /\.segment is not a regular file$/);
        assertEquals(hash(elsewhere), before, "what it led to was changed");
      }
      const { folder, files } = copy();
      symlinkSync("/nowhere", join(dirname(files[0]!), "9000000000000000.segment"));
      const link = join(dirname(files[0]!), "9000000000000000.segment");
      await assertRefused(folder, link, /\.segment is not a regular file$/);
      assert(!existsSync("/nowhere"));
    }));

  test("may not be a folder with a segment's name", () =>
    withQueues(async (copy) => {
      const { folder, files } = copy();
      const path = join(dirname(files[0]!), "0000000000000007.segment");
      mkdirSync(path);
      await assertRefused(folder, path, /\.segment is not a regular file$/);
      assert(lstatSync(files[0]!).isFile());
    }));

  test("with a number that no offset can have does no harm", () =>
    withQueues(async (copy) => {
      for (const content of ["", "text", readFileSync(copy().files[0]!)]) {
        const { folder, files } = copy();
        writeFileSync(join(dirname(files[0]!), "9999999999999999.segment"), content);
        await readAll(folder, ({ log, offsets, damages }) => {
          assertEquals([offsets, log.end, damages], [ALL, COUNT * LENGTH, []]);
        });
      }
    }));
});

test("what is damaged is not stored as if it was delivered", () =>
  withQueues(async (copy) => {
    // Readers were further than what is left.
    const { folder, files } = copy();
    await withOpen(folder, async (queue) => {
      const cursor = await (await queue.openLog("")).openCursor("a", 0);
      cursor.release(14 * LENGTH);
      assertEquals(cursor.offset, 14 * LENGTH);
    }, SHORT);
    writeFileSync(files[4]!, "gone");
    await readAll(folder, ({ log, offsets }) => {
      assertEquals(offsets, ALL.slice(0, 12));
      assertEquals([log.end, log.cursors[0]!.offset], [12 * LENGTH, 14 * LENGTH]);
    });
  }));
