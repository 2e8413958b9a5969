/** Segments with random damage: intact records come back, and nothing else does. Seeds are fixed. */
import { describe, test } from "node:test";
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { Buffer } from "node:buffer";
import { assert, assertEquals } from "#std/assert";
import { endOf, type StoredBatch } from "../src/queue/queue.ts";
import { Segment, type SegmentDamage, segmentName } from "../src/queue/segment.ts";
import { FILE_HEADER, RECORD_HEADER, streamCrc } from "../src/queue/segment_format.ts";
import { assertBatch, batchAt, withFolder } from "./queue_batches.ts";

const STREAM = "0123456789abcdef";
const CRC = streamCrc(STREAM);
const START = 70_000;

/** Numbers from 0 to 1, always the same for a seed (mulberry32). */
function random(seed: number): () => number {
  return () => {
    seed = (seed + 0x6d2b79f5) | 0;
    let t = Math.imul(seed ^ (seed >>> 15), 1 | seed);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}

interface Placed {
  offset: number;
  length: number;
  /** Where it is in the file. */
  from: number;
  to: number;
}

/** A segment of some records, with gaps; some of their bytes look like records. */
async function make(
  folder: string,
  next: () => number,
): Promise<{ path: string; placed: Placed[] }> {
  mkdirSync(folder);
  const segment = await Segment.create(folder, START, STREAM, CRC);
  const placed: Placed[] = [];
  const batches: StoredBatch[] = [];
  let offset = START;
  const count = 1 + Math.floor(next() * 12);
  for (let i = 0; i < count; i++) {
    const length = 1 + Math.floor(next() ** 3 * 20_000);
    const from = placed.at(-1)?.to ?? FILE_HEADER;
    placed.push({ offset, length, from, to: from + RECORD_HEADER + length });
    batches.push({ ...batchAt(offset, length), storedAtMs: Date.now() });
    offset += length + (next() < 0.2 ? Math.floor(next() * 1000) : 0);
  }
  await segment.write(batches);
  await segment.close();
  return { path: segment.path, placed };
}

/** A part of the file that is changed. */
type Part = [from: number, to: number];

/** Damages the content; returns it with the parts of the old one that are not as they were. */
function damage(content: Buffer, next: () => number): { content: Buffer; parts: Part[] } {
  const place = () => Math.floor(next() * content.length);
  const kind = Math.floor(next() * 7);
  const parts: Part[] = [];
  const randomBytes = (length: number) =>
    Buffer.from(Array.from({ length }, () => Math.floor(next() * 256)));
  switch (kind) {
    case 0: {
      // Some bits.
      for (let i = Math.floor(next() * 4); i >= 0; i--) {
        const at = place();
        content[at]! ^= 1 << Math.floor(next() * 8);
        parts.push([at, at + 1]);
      }
      return { content, parts };
    }
    case 1: {
      const at = place();
      return { content: content.subarray(0, at), parts: [[at, content.length]] };
    }
    case 2: {
      const at = place();
      const bytes = randomBytes(Math.min(content.length - at, Math.floor(next() * 3000)));
      bytes.copy(content, at);
      return { content, parts: [[at, at + bytes.length]] };
    }
    case 3: {
      // Zeros, as a file system leaves them where nothing was written before the power failed.
      const at = place();
      const to = next() < 0.5 ? content.length : Math.min(content.length, at + 4096);
      content.fill(0, at, to);
      return { content, parts: [[at, to]] };
    }
    case 4:
      return {
        content: Buffer.concat([content, randomBytes(1 + Math.floor(next() * 3000))]),
        parts,
      };
    case 5: {
      // Bytes that are missing in the middle: all after them is elsewhere.
      const at = place();
      const to = Math.min(content.length, at + 1 + Math.floor(next() * 500));
      return {
        content: Buffer.concat([content.subarray(0, at), content.subarray(to)]),
        parts: [[at, to]],
      };
    }
    default: {
      // Bytes that were put between, among them the beginning of a record.
      const at = place();
      const copied = content.subarray(FILE_HEADER, FILE_HEADER + 5 + Math.floor(next() * 60));
      const parts: Part[] = [[at - 1, at + 1]];
      return {
        content: Buffer.concat([content.subarray(0, at), copied, content.subarray(at)]),
        parts,
      };
    }
  }
}

interface Found {
  batches: StoredBatch[];
  damages: SegmentDamage[];
  torn: number;
}

/** All that a segment gives. */
async function read(path: string, check: boolean, reopen: boolean): Promise<Found> {
  const damages: SegmentDamage[] = [];
  const onDamage = (damage: SegmentDamage) => damages.push(damage);
  const segment = Segment.find(path, START, CRC)!;
  try {
    const torn = await segment.index(STREAM, onDamage, check);
    if (reopen) await segment.reopen();
    const batches: StoredBatch[] = [];
    for (let at = 0, batch; (batch = await segment.read(at, STREAM, onDamage)) !== null;) {
      assert(endOf(batch) > at, "it goes back");
      batches.push(batch);
      at = endOf(batch);
    }
    if (reopen) {
      // It goes on after them.
      const end = segment.end;
      await segment.write([{ ...batchAt(end, 777), storedAtMs: Date.now() }]);
      assertBatch(await segment.read(end, STREAM, onDamage), end, 777);
    }
    return { batches, damages, torn };
  } finally {
    await segment.close();
  }
}

const touches = ({ from, to }: Placed, parts: readonly Part[]) =>
  parts.some(([start, end]) => start < to && end > from);

/** What must come, comes; what comes is what was stored; and what does not is told of. */
function assertFound(
  what: string,
  placed: readonly Placed[],
  parts: readonly Part[],
  found: Found,
) {
  const { batches, damages, torn } = found;
  const came = new Map(batches.map((batch) => [batch.offset, batch]));
  for (const batch of batches) {
    const known = placed.find(({ offset }) => offset === batch.offset);
    assert(known !== undefined, `${what}: a batch at ${batch.offset}`);
    assertBatch(batch, known.offset, known.length);
  }
  const missing = placed.filter(({ offset }) => !came.has(offset));
  for (const record of missing) {
    assert(touches(record, parts), `${what}: the intact record at ${record.offset} did not come`);
  }
  for (const { offset, bytes, reason } of damages) {
    assert(
      Number.isSafeInteger(offset) && bytes > 0 && !reason.includes("\n"),
      `${what}: ${reason}`,
    );
  }
  // An incomplete record can only be the last one.
  const lost = missing.length;
  if (lost > (torn > 0 ? 1 : 0) && damages.length === 0) {
    // Cut off exactly between records, nothing tells of those that followed.
    const end = placed.length - lost;
    const cut = parts.length === 1 && parts[0]![0] <= placed[end]!.from + torn;
    assert(
      cut && missing.every((record, i) => record === placed[end + i]),
      `${what}: ${lost} lost`,
    );
  }
}

describe("a segment with random damage", () => {
  for (let block = 0; block < 8; block++) {
    test(`gives what is intact: seeds ${block * 50} to ${block * 50 + 49}`, () =>
      withFolder(async (folder) => {
        for (let seed = block * 50; seed < block * 50 + 50; seed++) {
          const next = random(seed);
          const { path, placed } = await make(join(folder, String(seed)), next);
          const whole = readFileSync(path);
          const { content, parts } = damage(Buffer.from(whole), next);
          writeFileSync(path, content);
          for (const [check, reopen] of [[false, false], [true, false], [true, true]] as const) {
            const what = `seed ${seed}, ${check ? "checked" : "by headers"}`;
            assertFound(what, placed, parts, await read(path, check, reopen));
          }
        }
      }));
  }

  test("of which nothing is left gives nothing", () =>
    withFolder(async (folder) => {
      for (let seed = 1000; seed < 1100; seed++) {
        const next = random(seed);
        const length = Math.floor(next() ** 2 * 50_000);
        const content = Buffer.from(Array.from({ length }, () => Math.floor(next() * 256)));
        // It may begin as one does, and have what looks like records.
        for (let at = FILE_HEADER; at + 4 < length; at += 1 + Math.floor(next() * 5000)) {
          content.write("rcrd", at);
          if (next() < 0.5) {
            content.writeUInt32BE(Math.floor(next() * 3000), Math.min(length - 4, at + 8));
          }
        }
        const path = join(folder, segmentName(START));
        writeFileSync(path, content);
        for (const check of [false, true]) {
          const { batches, damages, torn } = await read(path, check, false);
          assertEquals([seed, batches], [seed, []]);
          assert(
            damages.length > 0 || torn > 0 || length === 0,
            `seed ${seed}: nothing was told of`,
          );
        }
      }
    }));

  test("that is cut at any byte gives the records before it, silently", () =>
    withFolder(async (folder) => {
      const next = random(7);
      const path = join(folder, "s", segmentName(START));
      mkdirSync(join(folder, "s"));
      const segment = await Segment.create(join(folder, "s"), START, STREAM, CRC);
      const lengths = [1, 100, 30];
      let offset = START;
      for (const length of lengths) {
        await segment.write([{
          ...batchAt(offset, length),
          storedAtMs: Math.floor(next() * 1e12),
        }]);
        offset += length;
      }
      await segment.close();
      const whole = readFileSync(path);
      let end = FILE_HEADER;
      const ends = lengths.map((length) => end += RECORD_HEADER + length);
      for (let size = FILE_HEADER; size <= whole.length; size++) {
        writeFileSync(path, whole.subarray(0, size));
        const damages: SegmentDamage[] = [];
        const cut = Segment.find(path, START, CRC)!;
        const torn = await cut.index(STREAM, (damage) => damages.push(damage), true);
        const records = ends.filter((end) => end <= size).length;
        assertEquals([size, cut.records, damages], [size, records, []]);
        assertEquals(torn, size - (ends[records - 1] ?? FILE_HEADER));
        await cut.close();
      }
    }));
});
