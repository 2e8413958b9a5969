/** A batch whose bytes or numbers have changed in the file. */
import { describe, test } from "node:test";
import { readFileSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { Buffer } from "node:buffer";
import { assertEquals, assertMatch, assertNotEquals } from "#std/assert";
import type { Damage } from "../src/queue/queue.ts";
import { openSqliteQueue } from "../src/queue/sqlite_queue.ts";
import { run } from "./process.ts";
import { batchAt, fill, hash, withFolder } from "./queue_batches.ts";
import { within } from "./within.ts";

const MS = 10_000;

describe("a damaged batch", () => {
  /** A queue with three batches, of which something is changed in the file before it is opened. */
  async function withDamage(
    find: (content: Buffer) => number,
    use: (file: string) => Promise<void>,
  ): Promise<void> {
    await withFolder(async (folder) => {
      const file = join(folder, "a.queue");
      const queue = await openSqliteQueue(file);
      const reader = await queue.open("a");
      for (const offset of [0, 1, 2].map((i) => i * 300_000)) {
        const batch = { ...batchAt(offset, 300_000), position: POSITION + offset };
        if (offset === 300_000) batch.bytes.set(MARK, 150_000);
        await reader.append(batch);
      }
      await queue.close();
      const content = readFileSync(file);
      const at = find(content);
      assertNotEquals(at, -1, "not found");
      content[at]! ^= 0x10;
      writeFileSync(file, content);
      await use(file);
    });
  }
  /** A number that is nowhere else in the file. */
  const POSITION = 0x0123_4567_0000;
  const MARK = Buffer.from("here and nowhere else");
  const CASES: [string, (content: Buffer) => number][] = [
    ["a byte", (content) => content.indexOf(MARK)],
    ["its position", (content) => {
      const number = Buffer.alloc(6);
      number.writeUIntBE(POSITION + 300_000, 0, 6);
      return content.indexOf(number) + 1;
    }],
    ["its length", (content) => {
      const numbers = Buffer.alloc(6);
      numbers.writeUIntBE(300_000, 0, 3);
      numbers.writeUIntBE(300_000, 3, 3);
      return content.indexOf(numbers) + 4;
    }],
    ["its offset", (content) => {
      const numbers = Buffer.alloc(6);
      numbers.writeUIntBE(300_000, 0, 3);
      numbers.writeUIntBE(300_000, 3, 3);
      return content.indexOf(numbers);
    }],
  ];

  for (const [what, find] of CASES) {
    test(`of which ${what} has changed is set aside, and told of`, () =>
      withDamage(find, async (file) => {
        const before = hash(file);
        const check = await run(["bin/queue.ts", "check", file]);
        assertEquals(check.status, 1, check.stdout);
        assertMatch(check.stdout, /^(damaged|broken): /);
        const plan = await run(["bin/queue.ts", "repair", file]);
        assertMatch(plan.stdout, /not changed; to repair it: queue.ts repair \S+ --apply\n$/);
        assertEquals(hash(file), before, "check or the plan has changed it");

        const damages: Damage[] = [];
        const onDamage = (damage: Damage) => damages.push(damage);
        const queue = await openSqliteQueue(file, { onDamage });
        const reader = await queue.open("a");
        const first = await reader.read(0);
        assertEquals([first!.offset, first!.position], [0, POSITION]);
        const offsets: number[] = [];
        for (let at = 300_000;;) {
          const batch = await within("read", MS, reader.read(at));
          if (batch === null) break;
          offsets.push(batch.offset);
          at = batch.offset + batch.bytes.length;
        }
        assertEquals(offsets, [600_000]);
        assertEquals(damages.length, 1);
        assertEquals([damages[0]!.reader, damages[0]!.messages], ["a", 10]);
        assertEquals(reader.stored, { batches: 2, bytes: 600_000, messages: 20 });
        await fill(reader, 1, 1000);
        await queue.close();
        const later = await run(["bin/queue.ts", "check", file]);
        assertEquals(later.status, 1);
        assertMatch(later.stdout, /^set aside on 20\S+: reader "a", \d+ bytes/);
      }));

    test(`of which ${what} has changed is repaired`, () =>
      withDamage(find, async (file) => {
        const repaired = await run(["bin/queue.ts", "repair", file, "--apply"]);
        assertEquals([repaired.status, repaired.stderr], [0, ""]);
        assertMatch(repaired.stdout, /^set aside: reader "a", \d+ bytes \(10 messages\)/m);
        const queue = await openSqliteQueue(file);
        const reader = await queue.open("a");
        assertEquals((await reader.read(0))!.offset, 0);
        assertEquals((await reader.read(300_000))!.offset, 600_000);
        assertEquals(reader.stored.batches, 2);
        await queue.close();
      }));
  }

  test("is left out of an export, which says so", () =>
    withDamage(CASES[0]![1], async (file) => {
      const out = `${file}.out`;
      const { status, stderr } = await run(["bin/queue.ts", "export", file, "--out", out]);
      assertEquals(status, 0, stderr);
      assertMatch(
        stderr,
        /^missing: 300000 bytes at offset 300000: its CRC-32 is wrong\nexported 2 /,
      );
      assertEquals(statSync(out).size, 600_000);
    }));
});
