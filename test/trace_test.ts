/** Recorded feeds: tables and logs. */
import { describe, test } from "node:test";
import { assertEquals, assertThrows } from "#std/assert";
import { parseTrace, TraceError } from "../src/plan/trace.ts";

describe("a table", () => {
  test("says what arrives from each time on", () => {
    assertEquals(parseTrace("time,bytes\n10,5000\n11,6000\n13,1000\n"), {
      arrivals: [
        { at: 0, seconds: 1, bytes: 5000 },
        { at: 1, seconds: 2, bytes: 6000 },
        { at: 3, seconds: 2, bytes: 1000 },
      ],
      afterwards: 12_000 / 5,
    });
  });

  test("may have other columns, other separators, quotes, no head, dates, any order", () => {
    const { arrivals } = parseTrace("time,bytes\n0,500\n1,700\n");
    for (
      const text of [
        "0,500\n1,700",
        "\n0;500\r\n1;700\r\n",
        "host\tbytes\tseconds\na\t500\t0\nb\t700\t1\n",
        '"time","bytes"\n"1","700"\n"0","500"\n',
        "Timestamp,Size\n2026-11-29T23:59:59.5Z,500\n2026-11-30T00:00:00.5Z,700\n",
        "time,bytes\n2026-11-29 08:00:00,500\n2026-11-29 08:00:01,700\n",
        "date,length\n08:00:00,500\n08:00:01,700\n",
      ]
    ) assertEquals(parseTrace(text).arrivals, arrivals, text);
  });

  test("may count messages of a size that is given", () => {
    const text = "time,messages\n0,3\n1,4\n";
    assertEquals(parseTrace(text, { messageSize: 100 }).arrivals.map(({ bytes }) => bytes), [
      300,
      400,
    ]);
    assertThrows(() => parseTrace(text), TraceError, "with --size");
  });
});

describe("a log", () => {
  test("has lines that arrive at their times, with their bytes", () => {
    assertEquals(parseTrace("08:00:00.250 ab\n08:00:01,750 abc\n").arrivals, [
      { at: 0, seconds: 0, bytes: 16 },
      { at: 1.5, seconds: 0, bytes: 17 },
    ]);
  });

  test("may have dates, zones, seconds; a line without a time belongs to the one before", () => {
    for (
      const text of [
        "2026-11-29T08:00:00Z a\n2026-11-29T10:00:01+02:00 a\n",
        "[2026-11-29 08:00:00] a\n[2026-11-29 08:00:01] a\n",
        "1764403200.5 a\n1764403201.5 a\n",
      ]
    ) assertEquals(parseTrace(text).arrivals.map(({ at }) => at), [0, 1], text);
    assertEquals(parseTrace("00:00:00 é\n  more\n00:00:02 a\n").arrivals, [
      { at: 0, seconds: 0, bytes: 12 },
      { at: 0, seconds: 0, bytes: 7 },
      { at: 2, seconds: 0, bytes: 11 },
    ]);
  });
});

describe("a trace that cannot be read", () => {
  for (
    const [text, message] of [
      ["", "it is empty"],
      ["\n \n", "it is empty"],
      ["hello\nworld\n", "line 1 must begin with a time"],
      ["time,bytes\n0,1\nx,2\n", "line 3 must have a time and a number of bytes"],
      ["time,bytes\n0,1\n1,-2\n", "line 3 must have a time and a number of bytes"],
      ["time,bytes\n0,1\n1\n", "line 3 must have a time and a number of bytes"],
      ["time,bytes\n0,1\n", "must have two lines with a time"],
      ["08:00:00 a\n08:00:00 b\n", "all of it arrives at one time"],
    ] as const
  ) {
    test(`says why: ${JSON.stringify(text)}`, () => {
      assertThrows(() => parseTrace(text), TraceError, message);
    });
  }
});
