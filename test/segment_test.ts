/** One segment file: what it has, how it is read, and what becomes of it when it is damaged. */
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  realpathSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { type FileHandle, open } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, test } from "node:test";
import { setImmediate } from "node:timers";
import zlib from "node:zlib";
import { assert, assertEquals, assertRejects, assertThrows } from "#std/assert";
import { messagesIn, QueueError, type StoredBatch } from "../src/queue/queue.ts";
import {
  INCOMPLETE,
  Segment,
  type SegmentDamage,
  segmentName,
  segmentStart,
} from "../src/queue/segment.ts";
import { formatFileHeader, formatRecordHeader, streamCrc } from "../src/queue/segment_format.ts";

const STREAM = "0123456789abcdef";
const CRC = streamCrc(STREAM);
const START = 100;
const MIB = 1 << 20;

function batch(offset: number, length: number, messages: number, storedAtMs: number): StoredBatch {
  const bytes = Uint8Array.from({ length }, (_, i) => 97 + (offset + i) % 26);
  return { offset, bytes, messages, storedAtMs };
}

/** With a gap before the third. */
const BATCHES = [batch(100, 10, 2, 1000), batch(110, 5, 1, 1500), batch(200, 20, 4, 3000)];

const concat = (...parts: Uint8Array[]): Uint8Array => {
  const whole = new Uint8Array(parts.reduce((sum, { length }) => sum + length, 0));
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
};
const recordOf = (each: StoredBatch) => concat(formatRecordHeader(each, CRC), each.bytes);
const fileOf = (batches: readonly StoredBatch[] = BATCHES) =>
  concat(formatFileHeader(STREAM, START), ...batches.map(recordOf));
/** Where the records of that file begin, and its length. */
const [FIRST, SECOND, THIRD, LENGTH] = [32, 74, 111, 163] as const;

async function withFolder(run: (folder: string) => Promise<void>): Promise<void> {
  const folder = realpathSync(mkdtempSync(join(tmpdir(), "speedlimit-segment-")));
  try {
    await run(folder);
  } finally {
    rmSync(folder, { recursive: true });
  }
}

/** A segment of a file with these bytes, which is closed afterwards. */
const withFile = (
  bytes: Uint8Array,
  run: (segment: Segment, path: string) => Promise<void>,
): Promise<void> =>
  withFolder(async (folder) => {
    const path = join(folder, segmentName(START));
    writeFileSync(path, bytes);
    const segment = Segment.find(path, START, CRC)!;
    try {
      await run(segment, path);
    } finally {
      await segment.close();
    }
    assertEquals(opensOf(path), 0);
  });

/** How often this process has the file open; 0 where nobody knows. */
function opensOf(path: string): number {
  const folder = "/proc/self/fd";
  if (!existsSync(folder)) return 0;
  return readdirSync(folder).filter((name) => {
    try {
      return readlinkSync(join(folder, name)) === path;
    } catch {
      // It was the one of the folder itself.
      return false;
    }
  }).length;
}

/** Lets all go on that only waits for promises. */
async function turns(count: number): Promise<void> {
  for (let i = 0; i < count; i++) await Promise.resolve();
}

/** A method of a file handle. */
type Method = (this: FileHandle, ...args: unknown[]) => unknown;

/** Runs with another method of all file handles, made from the one that is there. */
async function withMethod<T>(
  name: "read" | "write" | "datasync",
  make: (original: Method) => Method,
  run: () => Promise<T>,
): Promise<T> {
  const handle = await open(new URL(import.meta.url));
  const prototype = Object.getPrototypeOf(handle) as Record<string, Method>;
  await handle.close();
  const original = prototype[name]!;
  prototype[name] = make(original);
  try {
    return await run();
  } finally {
    prototype[name] = original;
  }
}

/** Reads or writes a few bytes at a time. */
const little = (original: Method): Method =>
  function (bytes, from, length, at) {
    return Reflect.apply(original, this, [bytes, from, Math.min(length as number, 7), at]);
  };

/** Indexes a file; what it reported, and what it returned. */
async function indexed(
  segment: Segment,
  check = false,
): Promise<{ damages: SegmentDamage[]; torn: number; offsets: number[] }> {
  const damages: SegmentDamage[] = [];
  const torn = await segment.index(STREAM, (damage) => damages.push(damage), check);
  const offsets: number[] = [];
  for (let offset = 0, from; (from = segment.recordStart(offset)) !== undefined;) {
    offsets.push(from);
    offset = segment.recordEnd(from)!;
  }
  assertEquals(offsets.length, segment.records);
  return { damages, torn, offsets };
}

const noDamage = (damage: SegmentDamage) => assertEquals(damage, undefined as unknown);

const changed = (bytes: Uint8Array, at: number, change: (byte: number) => number): Uint8Array => {
  const copy = bytes.slice();
  copy[at] = change(copy[at]!);
  return copy;
};

/** All that it says of these records, by the offset; found by going through them. */
async function assertHas(segment: Segment, batches: readonly StoredBatch[]): Promise<void> {
  const sum = (numbers: number[]) => numbers.reduce((a, b) => a + b, 0);
  assertEquals(segment.records, batches.length);
  assertEquals(segment.total, {
    bytes: sum(batches.map(({ bytes }) => bytes.length)),
    messages: sum(batches.map(({ messages }) => messages)),
  });
  const last = batches.at(-1)!;
  assertEquals(segment.end, last.offset + last.bytes.length);
  assertEquals([segment.oldestMs, segment.newestMs], [batches[0]!.storedAtMs, last.storedAtMs]);
  for (let offset = 95; offset <= 225; offset++) {
    const rest = batches.filter(({ offset: from, bytes }) => from + bytes.length > offset);
    const [first] = rest;
    const inside = first !== undefined && first.offset <= offset;
    const left = rest.map(({ offset: from, bytes }) => bytes.length - Math.max(0, offset - from));
    assertEquals(segment.after(offset), {
      bytes: sum(left),
      messages: sum(
        rest.map(({ bytes, messages }, i) => messagesIn(left[i]!, bytes.length, messages)),
      ),
    }, `after ${offset}`);
    assertEquals(segment.storedAtMs(offset), first?.storedAtMs);
    assertEquals(segment.recordStart(offset), first?.offset);
    assertEquals(segment.recordEnd(offset), inside ? first.offset + first.bytes.length : undefined);
    assertEquals(await segment.read(offset, STREAM, noDamage), first ?? null);
  }
}

test("names hold the offset at which a segment begins", () => {
  assertEquals(segmentName(0), "0000000000000000.segment");
  assertEquals(segmentName(Number.MAX_SAFE_INTEGER), "9007199254740991.segment");
  for (const start of [0, 100, Number.MAX_SAFE_INTEGER]) {
    assertEquals(segmentStart(segmentName(start)), start);
  }
  const others = ["9007199254740992.segment", "100.segment", "0000000000000100.segmentx", "a"];
  for (const name of others) assertEquals(segmentStart(name), undefined);
});

describe("a new segment", () => {
  test("has a header, and then what is written", () =>
    withFolder(async (folder) => {
      const segment = await Segment.create(folder, START, STREAM, CRC);
      const { path } = segment;
      assertEquals(path, join(folder, segmentName(START)));
      assertEquals([segment.start, segment.follows, segment.size], [START, START, 32]);
      assertEquals([segment.end, segment.records, segment.total], [START, 0, {
        ...{ bytes: 0, messages: 0 },
      }]);
      assertEquals([segment.oldestMs, segment.newestMs], [undefined, undefined]);
      assertEquals(await segment.read(0, STREAM, noDamage), null);
      assertEquals(statSync(path).mode & 0o777, 0o600);
      assertEquals(new Uint8Array(readFileSync(path)), formatFileHeader(STREAM, START));
      await segment.write(BATCHES.slice(0, 1));
      assertEquals([segment.size, segment.end], [SECOND, 110]);
      await segment.write(BATCHES.slice(1));
      assertEquals(segment.size, LENGTH);
      assertEquals(new Uint8Array(readFileSync(path)), fileOf());
      await assertHas(segment, BATCHES);
      await assertRejects(() => Segment.create(folder, START, STREAM, CRC), Error);
      await segment.close();
      assertEquals(opensOf(path), 0);
    }));

  test("may say that the one before it ends earlier", () =>
    withFolder(async (folder) => {
      const segment = await Segment.create(folder, START, STREAM, CRC, 90);
      assertEquals(segment.follows, 90);
      await segment.close();
      const found = Segment.find(segment.path, START, CRC)!;
      assertEquals(found.follows, undefined);
      assertEquals(await indexed(found), { damages: [], torn: 0, offsets: [] });
      assertEquals(found.follows, 90);
      await found.close();
    }));

  test("is not left behind without its header", () =>
    withFolder(async (folder) => {
      const failing = () => () => Promise.reject(new Error("no room"));
      await withMethod("write", failing, () =>
        assertRejects(
          () => Segment.create(folder, START, STREAM, CRC),
          Error,
          "no room",
        ));
      assertEquals([readdirSync(folder), opensOf(join(folder, segmentName(START)))], [[], 0]);
      const segment = await Segment.create(folder, START, STREAM, CRC);
      await segment.close();
    }));
});

describe("a segment that is found", () => {
  test("has what was written, once it is indexed", () =>
    withFile(fileOf(), async (segment, path) => {
      assertEquals([segment.size, segment.records, segment.total], [LENGTH, 0, undefined]);
      assertEquals([segment.after(0), segment.storedAtMs(0)], [undefined, undefined]);
      assertEquals([segment.recordEnd(105), segment.recordStart(105)], [undefined, undefined]);
      assertEquals(segment.newestMs, statSync(path).mtimeMs);
      assertEquals(segment.oldestMs, undefined);
      await segment.findOldest();
      assertEquals([segment.oldestMs, opensOf(path)], [1000, 0]);
      const { damages, torn, offsets } = await indexed(segment);
      assertEquals([damages, torn, offsets], [[], 0, [100, 110, 200]]);
      assertEquals(segment.follows, START);
      await assertHas(segment, BATCHES);
      assertEquals(await indexed(segment, true), { damages, torn, offsets });
    }));

  test("of the first format as well", () => {
    const head = formatFileHeader(STREAM, START).slice(0, 24);
    const view = new DataView(head.buffer);
    view.setUint32(8, 2);
    view.setUint32(12, zlib.crc32(concat(head.slice(8, 12), head.slice(16))));
    return withFile(concat(head, ...BATCHES.map(recordOf)), async (segment) => {
      assertEquals(await indexed(segment, true), {
        damages: [],
        torn: 0,
        offsets: [100, 110, 200],
      });
      assertEquals(segment.follows, undefined);
      await assertHas(segment, BATCHES);
    });
  });

  test("is as old as its first intact record", () =>
    withFile(changed(fileOf(), FIRST, (byte) => byte ^ 1), async (segment) => {
      await segment.findOldest();
      assertEquals(segment.oldestMs, undefined);
      await indexed(segment);
      await segment.findOldest();
      assertEquals(segment.oldestMs, 1500);
    }));

  test("is no older than that, though more was known before it was checked", () =>
    withFile(changed(fileOf(), FIRST + 32, (byte) => byte ^ 1), async (segment) => {
      await segment.findOldest();
      assertEquals(segment.oldestMs, 1000);
      assertEquals((await indexed(segment, true)).offsets, [110, 200]);
      await assertHas(segment, BATCHES.slice(1));
    }));

  test("is indexed by whoever reads first", () =>
    withFile(fileOf().slice(0, LENGTH - 1), async (segment) => {
      const damages: SegmentDamage[] = [];
      const note = (damage: SegmentDamage) => void damages.push(damage);
      const reads = await Promise.all([100, 110, 115].map((at) => segment.read(at, STREAM, note)));
      assertEquals(reads, [BATCHES[0]!, BATCHES[1]!, null]);
      assertEquals(damages, [{ offset: 115, bytes: 51, reason: INCOMPLETE }]);
    }));

  test("tells whoever reads first of a single byte that is too much", () =>
    withFile(fileOf().slice(0, THIRD + 1), async (segment) => {
      const damages: SegmentDamage[] = [];
      await segment.read(0, STREAM, (damage) => damages.push(damage));
      assertEquals(damages, [{ offset: 115, bytes: 1, reason: INCOMPLETE }]);
    }));

  test("is a regular file", () =>
    withFolder(async (folder) => {
      const path = join(folder, segmentName(START));
      assertEquals(Segment.find(path, START, CRC), undefined);
      const other = join(folder, "other");
      writeFileSync(other, fileOf());
      symlinkSync(other, path);
      const refused = () =>
        assertThrows(() => Segment.find(path, START, CRC), QueueError, "is not a regular file");
      refused();
      rmSync(path);
      mkdirSync(path);
      refused();
      await Promise.resolve();
    }));

  test("is not followed to another place later", () =>
    withFile(fileOf(), async (segment, path) => {
      renameSync(path, `${path}.moved`);
      symlinkSync(`${path}.moved`, path);
      await assertRejects(() => segment.read(100, STREAM, noDamage), Error);
      await assertRejects(() => segment.reopen(), Error);
    }));

  test("need not be there when its age is asked for", () =>
    withFile(fileOf(), async (segment, path) => {
      renameSync(path, `${path}.gone`);
      await segment.findOldest();
      assertEquals(segment.oldestMs, undefined);
      await assertRejects(() => segment.read(100, STREAM, noDamage), Error);
      renameSync(`${path}.gone`, path);
      assertEquals(await segment.read(100, STREAM, noDamage), BATCHES[0]!);
    }));
});

describe("a read", () => {
  test("uses the buffer that it is given, if that is long enough", () =>
    withFile(fileOf(), async (segment) => {
      for (const [length, fits] of [[41, false], [42, true], [100, true]] as const) {
        const into = new ArrayBuffer(length);
        const found = await segment.read(105, STREAM, noDamage, into);
        assertEquals(found, BATCHES[0]!);
        assertEquals(found!.bytes.buffer === into, fits);
      }
    }));

  test("goes on where the system gives less than it was asked for", () =>
    withFile(fileOf(), async (segment) => {
      await withMethod("read", little, async () => {
        assertEquals((await indexed(segment, true)).offsets, [100, 110, 200]);
        assertEquals(await segment.read(200, STREAM, noDamage), BATCHES[2]!);
      });
    }));

  test("leaves out what is damaged, and reports it once", () =>
    withFile(changed(fileOf(), SECOND + 34, (byte) => byte ^ 1), async (segment) => {
      // Only the headers are looked at.
      assertEquals(await segment.index(STREAM, noDamage), 0);
      const damages: SegmentDamage[] = [];
      const note = (damage: SegmentDamage) => void damages.push(damage);
      const reads = await Promise.all([110, 112].map((at) => segment.read(at, STREAM, note)));
      assertEquals(reads, [BATCHES[2]!, BATCHES[2]!]);
      const reason = `the record at byte ${SECOND} of ${segmentName(START)}: its CRC-32 is wrong`;
      assertEquals(damages, [{ offset: 110, bytes: 5, reason }]);
      await assertHas(segment, [BATCHES[0]!, BATCHES[2]!]);
      // It stays out.
      await segment.putAside();
      assertEquals((await indexed(segment)).offsets, [100, 200]);
      await assertHas(segment, [BATCHES[0]!, BATCHES[2]!]);
    }));

  test("leaves out the first one, if that is damaged", () =>
    withFile(changed(fileOf(), FIRST + 32, (byte) => byte ^ 1), async (segment) => {
      const damages: SegmentDamage[] = [];
      const note = (damage: SegmentDamage) => void damages.push(damage);
      assertEquals(await segment.read(0, STREAM, note), BATCHES[1]!);
      assertEquals(damages.map(({ offset, bytes }) => [offset, bytes]), [[100, 10]]);
      assertEquals(segment.total, { bytes: 25, messages: 5 });
      assertEquals(segment.after(0), segment.total);
    }));

  test("finds out that a file was cut meanwhile", () =>
    withFile(fileOf(), async (segment, path) => {
      await indexed(segment);
      truncateSync(path, LENGTH - 1);
      const damages: SegmentDamage[] = [];
      assertEquals(await segment.read(200, STREAM, (damage) => damages.push(damage)), null);
      assertEquals(damages.map(({ offset, bytes }) => [offset, bytes]), [[200, 20]]);
      assertEquals([segment.records, segment.end], [2, 115]);
      assertEquals(segment.total, { bytes: 15, messages: 3 });
    }));
});

describe("damage", () => {
  const cases: [
    what: string,
    file: Uint8Array,
    damages: SegmentDamage[],
    offsets: number[],
    onlyWithCheck?: boolean,
  ][] = [
    [
      "of the file's header",
      changed(fileOf(), 20, (byte) => byte ^ 1),
      [{ offset: START, bytes: 32, reason: "the CRC of its header is wrong" }],
      [100, 110, 200],
    ],
    [
      "of a record's beginning",
      changed(fileOf(), SECOND, (byte) => byte ^ 1),
      [{ offset: 110, bytes: 37, reason: "no record begins there" }],
      [100, 200],
    ],
    [
      "of the first record",
      changed(fileOf(), FIRST, (byte) => byte ^ 1),
      [{ offset: START, bytes: 42, reason: "no record begins there" }],
      [110, 200],
    ],
    [
      "of a record's length",
      changed(fileOf(), SECOND + 10, () => 1),
      [{ offset: 110, bytes: 37, reason: "its last bytes are missing" }],
      [100, 200],
    ],
    [
      "of a record's length, which is less then",
      changed(fileOf(), SECOND + 11, () => 4),
      [{ offset: 110, bytes: 37, reason: "its CRC-32 is wrong" }],
      [100, 200],
    ],
    [
      "of the file's header and of a record's bytes",
      changed(changed(fileOf(), 20, (byte) => byte ^ 1), THIRD - 1, (byte) => byte ^ 1),
      [
        { offset: START, bytes: 32, reason: "the CRC of its header is wrong" },
        { offset: 110, bytes: 37, reason: "its CRC-32 is wrong" },
      ],
      [100, 200],
    ],
    [
      "of a record's bytes",
      changed(fileOf(), THIRD - 1, (byte) => byte ^ 1),
      [{ offset: 110, bytes: 37, reason: "its CRC-32 is wrong" }],
      [100, 200],
      true,
    ],
    [
      "of the last record's bytes",
      changed(fileOf(), LENGTH - 1, (byte) => byte ^ 1),
      [{ offset: 115, bytes: 52, reason: "its CRC-32 is wrong" }],
      [100, 110],
      true,
    ],
    [
      // It is whole: it was not cut off.
      "of the last record's length",
      changed(fileOf(), THIRD + 11, () => 21),
      [{ offset: 115, bytes: 52, reason: "its last bytes are missing" }],
      [100, 110],
    ],
    [
      "by a record that is there twice",
      concat(fileOf(BATCHES.slice(0, 2)), recordOf(BATCHES[1]!), recordOf(BATCHES[2]!)),
      [{ offset: 115, bytes: 37, reason: "its offset 110 is before 115" }],
      [100, 110, 200],
    ],
    [
      "of a single byte between two records",
      concat(fileOf(BATCHES.slice(0, 2)), new Uint8Array(1), recordOf(BATCHES[2]!)),
      [{ offset: 115, bytes: 1, reason: "no record begins there" }],
      [100, 110, 200],
    ],
    [
      "at the end",
      concat(fileOf(), new Uint8Array(10)),
      [{ offset: 220, bytes: 10, reason: "no record begins there" }],
      [100, 110, 200],
    ],
    [
      "at the end, longer than a header",
      concat(fileOf(), new Uint8Array(40)),
      [{ offset: 220, bytes: 40, reason: "no record begins there" }],
      [100, 110, 200],
    ],
    [
      "at the end, by a part of a record that was before",
      concat(fileOf(), recordOf(BATCHES[2]!).slice(0, 40)),
      [{ offset: 220, bytes: 40, reason: "its offset 200 is before 220" }],
      [100, 110, 200],
    ],
    [
      "of a file that has only a part of its header",
      fileOf().slice(0, 10),
      [{ offset: START, bytes: 10, reason: "it is shorter than its header" }],
      [],
    ],
    [
      "of a file of one byte",
      fileOf().slice(0, 1),
      [{ offset: START, bytes: 1, reason: "it is shorter than its header" }],
      [],
    ],
    ["of none: an empty file", new Uint8Array(0), [], []],
  ];
  for (const [what, file, damages, offsets, onlyWithCheck = false] of cases) {
    test(`${what} is told of, and what is intact is kept`, async () => {
      for (const check of [true, false]) {
        await withFile(file, async (segment) => {
          const found = await indexed(segment, check);
          if (!check && onlyWithCheck) {
            assertEquals([found.damages, found.torn], [[], 0]);
            assertEquals(found.offsets, [100, 110, 200]);
            return;
          }
          assertEquals(found, { damages, torn: 0, offsets });
          if (offsets.length > 0) {
            await assertHas(segment, BATCHES.filter(({ offset }) => offsets.includes(offset)));
          }
          const isOfHeader = file.length < 32 || damages[0]?.bytes === 32;
          assertEquals(segment.follows, isOfHeader ? undefined : START);
        });
      }
    });
  }

  test("of a length that hides the next record, before a write that was cut off", () => {
    // As if it went on to the end of the third.
    const file = changed(fileOf(), SECOND + 11, () => 5 + LENGTH - THIRD);
    return Promise.all([1, 35].map((torn) => {
      const cut = recordOf(batch(220, 9, 1, 4000)).slice(0, torn);
      return withFile(concat(file, cut), async (segment) => {
        assertEquals(await indexed(segment), {
          damages: [{ offset: 110, bytes: 37, reason: "its CRC-32 is wrong" }],
          torn,
          offsets: [100, 200],
        });
      });
    })).then(() => {});
  });

  test("is reported once, to the first who asks", () =>
    withFile(changed(fileOf(), SECOND, (byte) => byte ^ 1), async (segment) => {
      const damages: [number, SegmentDamage][] = [];
      const torn = await Promise.all(
        [1, 2].map((who) => segment.index(STREAM, (damage) => void damages.push([who, damage]))),
      );
      assertEquals([torn, damages.map(([who]) => who)], [[0, 0], [1]]);
      await segment.putAside();
      assertEquals(await indexed(segment), { damages: [], torn: 0, offsets: [100, 200] });
    }));

  test("up to the next record, however far that is", async () => {
    for (const beyond of [-5, -4, -3, -2, -1, 0, 1]) {
      // The search begins one byte after the damage does, and looks at 1 MiB at a time.
      const damage = new Uint8Array(1 + MIB + beyond);
      // What begins as a record need not be one.
      damage.set(recordOf(BATCHES[0]!).slice(0, 36), 50);
      damage.set(recordOf(batch(150, 9, 1, 2000)).slice(0, 36), 100);
      const file = concat(fileOf(BATCHES.slice(0, 2)), damage, recordOf(BATCHES[2]!));
      await withFile(file, async (segment) => {
        const reason = "no record begins there";
        assertEquals(await indexed(segment), {
          damages: [{ offset: 115, bytes: damage.length, reason }],
          torn: 0,
          offsets: [100, 110, 200],
        });
        assertEquals(await segment.read(150, STREAM, noDamage), BATCHES[2]!);
      });
    }
  });
});

describe("a write that was cut off", () => {
  test("leaves the records before it, wherever it was, and is written over", async () => {
    for (let length = THIRD + 1; length < LENGTH; length++) {
      for (const check of [false, true]) {
        await withFile(fileOf().slice(0, length), async (segment, path) => {
          const torn = length - THIRD;
          assertEquals(await indexed(segment, check), { damages: [], torn, offsets: [100, 110] });
          assertEquals([segment.size, segment.end], [length, 115]);
          await segment.reopen();
          assertEquals([segment.size, statSync(path).size], [THIRD, THIRD]);
          await segment.write([BATCHES[2]!]);
          assertEquals(new Uint8Array(readFileSync(path)), fileOf());
          if (length === LENGTH - 1) await assertHas(segment, BATCHES);
        });
      }
    }
  });

  test("may be of a record that follows at once; it is told of once", () =>
    withFile(fileOf().slice(0, THIRD - 1), async (segment) => {
      assertEquals(await indexed(segment), { damages: [], torn: 36, offsets: [100] });
      assertEquals(await segment.index(STREAM, noDamage), 0);
    }));

  test("that fails changes nothing", () =>
    withFolder(async (folder) => {
      const segment = await Segment.create(folder, START, STREAM, CRC);
      const { path } = segment;
      await segment.write(BATCHES.slice(0, 1));
      let writes = 0;
      const failing = (original: Method): Method =>
        function (...args) {
          if (++writes === 4) return Promise.reject(new Error("no room"));
          return Reflect.apply(original, this, args);
        };
      await withMethod("write", failing, () =>
        assertRejects(
          () => segment.write(BATCHES.slice(1)),
          Error,
          "no room",
        ));
      assertEquals([segment.size, segment.end, segment.records], [SECOND, 110, 1]);
      assertEquals(statSync(path).size, SECOND);
      await withMethod("write", little, () => segment.write(BATCHES.slice(1)));
      assertEquals(new Uint8Array(readFileSync(path)), fileOf());
      await assertHas(segment, BATCHES);
      await segment.close();
    }));
});

describe("a segment", () => {
  test("is put aside while nobody uses it, and comes back", () =>
    withFile(fileOf(), async (segment, path) => {
      await indexed(segment);
      const reading = segment.read(100, STREAM, noDamage);
      await segment.putAside();
      assert(segment.after(0) !== undefined, "it is used");
      await reading;
      await segment.putAside();
      assertEquals([segment.after(0), segment.records, opensOf(path)], [undefined, 0, 0]);
      assertEquals([segment.storedAtMs(100), segment.recordEnd(100)], [undefined, undefined]);
      // What it has is still known.
      assertEquals(segment.total, { bytes: 35, messages: 7 });
      assertEquals(await segment.read(112, STREAM, noDamage), BATCHES[1]!);
      await assertHas(segment, BATCHES);
    }));

  test("may be put aside at any moment of a read", async () => {
    for (let moment = 0; moment < 30; moment++) {
      await withFile(fileOf(), async (segment) => {
        let reads = 0;
        // The fourth one reads the last header.
        const hooked = (original: Method): Method =>
          function (...args) {
            const reading = Reflect.apply(original, this, args) as Promise<unknown>;
            if (++reads !== 4) return reading;
            return reading.finally(() => {
              void turns(moment).then(() => segment.putAside());
            });
          };
        await withMethod("read", hooked, async () => {
          assertEquals(await segment.read(112, STREAM, noDamage), BATCHES[1]!);
        });
      });
    }
  });

  test("is closed once nobody uses it", () =>
    withFile(fileOf(), async (segment, path) => {
      await indexed(segment);
      const gate = Promise.withResolvers<void>();
      const waiting = (original: Method): Method =>
        async function (...args) {
          await gate.promise;
          return await Reflect.apply(original, this, args);
        };
      let closed = false;
      await withMethod("read", waiting, async () => {
        const reading = segment.read(100, STREAM, noDamage);
        reading.catch(() => {});
        await turns(10);
        const closing = segment.close().then(() => closed = true);
        for (let i = 0; i < 10; i++) await new Promise((resolve) => setImmediate(resolve));
        assertEquals(closed, false);
        gate.resolve();
        await closing;
        assertEquals(await reading, BATCHES[0]!);
      });
      assertEquals(opensOf(path), 0);
      await assertRejects(() => segment.read(100, STREAM, noDamage), Error, `${path} is closed`);
      await segment.putAside();
      assert(segment.after(0) !== undefined);
      await segment.sync();
    }));

  test("is synced, unless somebody else has removed it", () =>
    withFolder(async (folder) => {
      const segment = await Segment.create(folder, START, STREAM, CRC);
      let syncs = 0;
      const counting = (original: Method): Method =>
        function (...args) {
          syncs++;
          return Reflect.apply(original, this, args);
        };
      await withMethod("datasync", counting, () => segment.sync());
      assertEquals(syncs, 1);
      rmSync(segment.path);
      await assertRejects(
        () => segment.sync(),
        QueueError,
        "was removed while it was in use",
      );
      await segment.close();
      await segment.sync();
    }));
});
