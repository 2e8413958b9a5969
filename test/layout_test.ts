/** Where messages of different sizes begin, against adding up their sizes. */
import { describe, test } from "node:test";
import { assertEquals } from "#std/assert";
import { Layout } from "../src/message/layout.ts";

describe("a layout", () => {
  for (const sizes of [[13], [1], [3, 1, 7], [5, 5], [1, 1000, 2, 3]]) {
    test(`of ${sizes}`, () => {
      const layout = Layout.of(sizes);
      const lap = sizes.reduce((sum, size) => sum + size, 0);
      assertEquals([layout.count, layout.lap, layout.size], [
        sizes.length,
        lap,
        lap / sizes.length,
      ]);
      assertEquals(layout.longest, Math.max(...sizes));
      const starts: number[] = [0];
      for (let i = 0; i < 3 * sizes.length; i++) starts.push(starts[i]! + sizes[i % sizes.length]!);
      starts.forEach((start, i) => assertEquals(layout.offsetOf(i), start));
      for (let offset = 0; offset <= starts.at(-1)!; offset++) {
        const begun = starts.filter((start) => start < offset).length;
        assertEquals(layout.begunBefore(offset), begun, `before ${offset}`);
      }
    });
  }

  test("messages of one size are a layout, too, and an endless number has no end", () => {
    const layout = Layout.equal(13);
    assertEquals([layout.offsetOf(3), layout.begunBefore(27), layout.longest], [39, 3, 13]);
    for (const each of [layout, Layout.of([3, 4])]) {
      assertEquals([each.offsetOf(Infinity), each.begunBefore(Infinity)], [Infinity, Infinity]);
    }
  });
});
