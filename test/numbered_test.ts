/** Numbered messages, as bytes, and what their verifier makes of all that can happen to them. */
import { describe, test } from "node:test";
import { crc32 as zlibCrc32 } from "node:zlib";
import { assert, assertEquals, assertThrows } from "#std/assert";
import { crc32, CrcHead } from "../src/message/crc32.ts";
import { fillNumbered, type NumberedTotals, NumberedVerifier } from "../src/message/numbered.ts";

/** Messages with these numbers, one after the other. */
function messages(numbers: readonly number[], size = 64): Uint8Array {
  const bytes = new Uint8Array(numbers.length * size);
  numbers.forEach((first, i) => {
    const into = bytes.subarray(i * size);
    fillNumbered(into, { first, count: 1, size, plannedMs: 1.7e12, everyMs: 0 });
  });
  return bytes;
}

const range = (from: number, to: number): number[] =>
  Array.from({ length: to - from }, (_, i) => from + i);

function verify(bytes: Uint8Array, size = 64, next = 0, chunk = bytes.length): NumberedVerifier {
  const verifier = new NumberedVerifier(size, next);
  for (let at = 0; at < bytes.length; at += chunk) verifier.push(bytes.subarray(at, at + chunk));
  return verifier;
}

/** [missing, duplicates, out of order, damaged] */
const faults = ({ missing, duplicates, outOfOrder, damaged }: NumberedTotals): number[] => [
  missing,
  duplicates,
  outOfOrder,
  damaged,
];

/** The same numbers on every run (mulberry32). */
function random(seed: number): () => number {
  return () => {
    seed = seed + 0x6d2b_79f5 | 0;
    let t = Math.imul(seed ^ seed >>> 15, 1 | seed);
    t = t + Math.imul(t ^ t >>> 7, 61 | t) ^ t;
    return ((t ^ t >>> 14) >>> 0) / 2 ** 32;
  };
}

describe("crc32", () => {
  test("is zlib's, for every length and place", () => {
    assertEquals(crc32(new TextEncoder().encode("123456789"), 0, 9), 0xcbf4_3926);
    const bytes = Uint8Array.from({ length: 700 }, (_, i) => i * 31 + (i >> 3));
    for (let length = 0; length <= 650; length++) {
      for (const from of [0, 1, 7, 50]) {
        const expected = zlibCrc32(bytes.subarray(from, from + length));
        assertEquals(crc32(bytes, from, from + length), expected);
      }
    }
  });

  test("of messages that differ only in their head is that of all of them", () => {
    const bytes = Uint8Array.from({ length: 300 }, (_, i) => i * 37 + (i >> 2));
    const view = new DataView(bytes.buffer);
    for (const head of [4, 16, 20]) {
      for (const end of [head, head + 1, head + 44, 300]) {
        const crc = new CrcHead(head, bytes.subarray(head, end));
        let register = crc.zero;
        for (let at = 0; at < head; at += 4) register ^= crc.word(at, view.getUint32(at));
        assertEquals(~register >>> 0, crc32(bytes, 0, end));
      }
    }
  });
});

describe("numbered messages", () => {
  test("number, time, filler and CRC lie where they should", () => {
    for (const size of [20, 21, 63, 64, 1000, 4096]) {
      const bytes = new Uint8Array(3 * size + 5).fill(0xaa);
      // None at all, and nowhere to put them.
      fillNumbered(new Uint8Array(), { first: 0, count: 0, size, plannedMs: 0, everyMs: 0 });
      const fill = { first: 2 ** 32 - 2, count: 3, size, plannedMs: 1_763_662_800_123, everyMs: 2 };
      fillNumbered(bytes, fill);
      for (let i = 0; i < 3; i++) {
        const view = new DataView(bytes.buffer, i * size, size);
        assertEquals(view.getBigUint64(0), BigInt(2 ** 32 - 2 + i));
        assertEquals(view.getBigUint64(8), 1_763_662_800_123_000_000n + BigInt(i) * 2_000_000n);
        for (let at = 16; at < size - 4; at++) assert(view.getUint8(at) > 32, `at ${at}`);
        const expected = zlibCrc32(bytes.subarray(i * size, (i + 1) * size - 4));
        assertEquals(view.getUint32(size - 4), expected);
      }
      // Nothing is written behind them.
      assertEquals([...bytes.subarray(3 * size)], [0xaa, 0xaa, 0xaa, 0xaa, 0xaa]);
    }
  });

  test("many at once are as one by one, in a view that begins anywhere", () => {
    const numbers = range(1000, 1777);
    const all = new Uint8Array(777 * 24 + 3).subarray(3);
    fillNumbered(all, { first: 1000, count: 777, size: 24, plannedMs: 1.7e12, everyMs: 0 });
    assertEquals(all, messages(numbers, 24));
    fillNumbered(all, { first: 0, count: 0, size: 24, plannedMs: 0, everyMs: 0 });
    assertEquals(all, messages(numbers, 24));
  });

  test("planned times are right to a microsecond, past 2^53 ns", () => {
    const bytes = new Uint8Array(20_000 * 20);
    const view = new DataView(bytes.buffer);
    const every = [0, 1e-4, 1 / 3, 0.000_999, 1, 1000 / 7, 3_600_000];
    for (const everyMs of every) {
      for (const plannedMs of [1_763_662_800_000, 1_763_662_800_123.456, 4_102_444_799_999.75, 0]) {
        fillNumbered(bytes, { first: 0, count: 20_000, size: 20, plannedMs, everyMs });
        // Whole ms and their fractions apart, as neither loses anything alone.
        const exact = (ms: number) => BigInt(Math.floor(ms)) * 1_000_000n;
        const fraction = (ms: number) => (ms - Math.floor(ms)) * 1e6;
        for (const i of [0, 1, 2, 999, 19_999]) {
          const planned = exact(plannedMs) + BigInt(i) * exact(everyMs) +
            BigInt(Math.round(fraction(plannedMs) + i * fraction(everyMs)));
          const error = Number(view.getBigUint64(i * 20 + 8) - planned);
          assert(Math.abs(error) < 1000, `${plannedMs} + ${i} * ${everyMs}: ${error} ns`);
        }
      }
    }
  });

  test("what cannot be is refused", () => {
    const fill = { first: 0, count: 2, size: 20, plannedMs: 0, everyMs: 0 };
    for (const size of [0, 19, -1, 20.5, NaN, Infinity]) {
      const message = "must be a whole number of at least 20, is";
      assertThrows(() => fillNumbered(new Uint8Array(100), { ...fill, size }), RangeError, message);
      assertThrows(() => new NumberedVerifier(size), RangeError, message);
    }
    assertThrows(() => fillNumbered(new Uint8Array(39), fill), RangeError, "do not fit");
  });
});

describe("the verifier", () => {
  test("finds nothing wrong in what is right, however it is cut", () => {
    for (const size of [20, 33, 300]) {
      const bytes = messages(range(0, 50), size);
      for (let chunk = 1; chunk <= 3 * size + 1; chunk++) {
        const verifier = verify(bytes, size, 0, chunk);
        assertEquals([verifier.messages, ...faults(verifier)], [50, 0, 0, 0, 0]);
        assertEquals(verifier.end(), 0);
      }
    }
  });

  const cases: Record<string, [numbers: number[], expected: number[], next?: number]> = {
    "one missing": [[0, 1, 3, 4], [1, 0, 0, 0]],
    "many missing, twice": [[0, 10, 20], [18, 0, 0, 0]],
    "the first ones missing": [[3, 4], [3, 0, 0, 0]],
    "one twice": [[0, 1, 1, 2], [0, 1, 0, 0]],
    "a run twice": [[0, 1, 2, 0, 1, 2, 3], [0, 3, 0, 0]],
    "one late": [[0, 2, 3, 1, 4], [0, 0, 1, 0]],
    "one late, from the middle of a gap": [[0, 9, 5, 10], [7, 0, 1, 0]],
    "one late, and then again": [[0, 2, 1, 1, 3], [0, 1, 1, 0]],
    "all in reverse": [[3, 2, 1, 0, 4], [0, 0, 3, 0]],
    "a gap that fills from its end": [[0, 4, 3, 2, 1], [0, 0, 3, 0]],
    "from where it was told": [[70, 71, 72], [0, 0, 0, 0], 70],
    "before where it was told": [[69, 70, 72], [1, 1, 0, 0], 70],
    "past 2^32": [[2 ** 32 - 1, 2 ** 32, 2 ** 32 + 2], [1, 0, 0, 0], 2 ** 32 - 1],
    "the highest number": [[2 ** 53 - 1], [0, 0, 0, 0], 2 ** 53 - 1],
  };
  for (const [name, [numbers, expected, next]] of Object.entries(cases)) {
    test(name, () => {
      for (const chunk of [7, 64, 1000]) {
        const verifier = verify(messages(numbers), 64, next, chunk);
        assertEquals(faults(verifier), expected);
        assertEquals(verifier.messages, numbers.length);
      }
    });
  }

  test("any bit that is wrong is one damaged message, and no gap", () => {
    const clean = messages(range(0, 5), 20);
    for (let bit = 0; bit < 20 * 8; bit++) {
      const bytes = clean.slice();
      bytes[40 + (bit >> 3)]! ^= 1 << (bit & 7);
      assertEquals(faults(verify(bytes, 20)), [0, 0, 0, 1], `bit ${bit}`);
    }
  });

  test("a damaged message that was another than the one due is still one fault", () => {
    const damaged = (at: number, numbers: number[]): number[] => {
      const bytes = messages(numbers);
      bytes[at * 64 + 30]! ^= 1;
      return faults(verify(bytes));
    };
    assertEquals(damaged(2, [0, 1, 1, 2, 3]), [0, 0, 0, 1]);
    assertEquals(damaged(2, [0, 1, 2, 5, 6]), [2, 0, 0, 1]);
    assertEquals(damaged(0, [0, 1, 2]), [0, 0, 0, 1]);
  });

  test("a number past 2^53 is damage, though its CRC is right", () => {
    const bytes = messages([0, 1, 2]);
    const view = new DataView(bytes.buffer);
    view.setUint32(64, 2 ** 21);
    view.setUint32(124, zlibCrc32(bytes.subarray(64, 124)));
    assertEquals(faults(verify(bytes)), [0, 0, 0, 1]);
  });

  test("a byte that was lost damages all the rest, and a message that is cut off is told", () => {
    const bytes = messages(range(0, 10));
    const lost = new Uint8Array([...bytes.subarray(0, 200), ...bytes.subarray(201)]);
    const verifier = verify(lost);
    assertEquals([verifier.messages, ...faults(verifier)], [9, 0, 0, 0, 6]);
    assertEquals(verifier.end(), 63);
  });

  test("chance orders: as a plain account of them has it", () => {
    const next = random(1);
    for (let round = 0; round < 300; round++) {
      // Each is left out, sent twice, or moved by a few places, now and then.
      const order = range(0, 400).flatMap((number) => {
        const at = number + (next() < 0.1 ? next() * 20 - 10 : 0);
        return next() < 0.05 ? [] : next() < 0.05 ? [[at, number], [at + 15, number]] : [[
          at,
          number,
        ]];
      });
      const numbers = order.sort((a, b) => a[0]! - b[0]!).map(([, number]) => number!);
      const seen = new Set<number>();
      let highest = -1;
      let duplicates = 0;
      let outOfOrder = 0;
      for (const number of numbers) {
        if (seen.has(number)) duplicates++;
        else if (number < highest) outOfOrder++;
        seen.add(number);
        highest = Math.max(highest, number);
      }
      const missing = highest + 1 - seen.size;
      const verifier = verify(messages(numbers, 20), 20, 0, 1 + Math.floor(next() * 100));
      assertEquals(faults(verifier), [missing, duplicates, outOfOrder, 0], `round ${round}`);
    }
  });

  test("what it remembers is bounded: of too many gaps the oldest are forgotten", () => {
    // Every other one is missing, 2000 times, and then they all come.
    const odd = range(0, 2000).map((i) => 2 * i + 1);
    const even = odd.map((number) => number - 1);
    const verifier = verify(messages([...odd, ...even], 20), 20);
    assertEquals(faults(verifier), [976, 976, 1024, 0]);
  });
});
