/** Quantities, as typed and as printed. */
import { describe, test } from "node:test";
import { assertEquals, assertThrows } from "#std/assert";
import {
  formatByteRate,
  formatBytes,
  formatCount,
  formatHostPort,
  formatSeconds,
  formatSize,
  parseByteRate,
  parseBytes,
  parseCount,
  parseDuration,
  parseFraction,
  parseHostPort,
  parsePort,
  parseRate,
  UnitError,
} from "../src/text/units.ts";

/** What nobody means by a quantity of any kind. */
const NONSENSE = ["", " ", "-", "-1", "+", "NaN", "Infinity", "-Infinity", "x", "1x", "1,5", "1 2"]
  .concat(["0x10", "1..2", "k", "/s", "e9", "1e", "1e400", "1_000", "--1", "\n", "max "]);

function parses<T>(parse: (text: string) => T, table: Record<string, T>): void {
  for (const [text, value] of Object.entries(table)) assertEquals(parse(text), value, text);
}

function refuses(parse: (text: string) => unknown, texts: readonly string[], say: string): void {
  for (const text of texts) {
    const error = assertThrows(() => parse(text), UnitError, say, JSON.stringify(text));
    assertEquals(error.message.split("\n").length, 1);
  }
}

describe("what is typed", () => {
  test("sizes are powers of 1024", () => {
    parses(parseBytes, {
      "1": 1,
      "4096": 4096,
      "64k": 65_536,
      "64K": 65_536,
      "64KiB": 65_536,
      "64 k": 65_536,
      " 1M ": 1 << 20,
      "1.5M": 1_572_864,
      "1MiB": 1 << 20,
      "1G": 2 ** 30,
      "1T": 2 ** 40,
      "100kB": 100_000,
      "1MB": 1_000_000,
      "10B": 10,
      "1e6": 1_000_000,
      ".5k": 512,
      "1.3k": 1331,
    });
    refuses(
      parseBytes,
      [...NONSENSE, "0", "0.2", "0k", "1m", "1iB", "64kb", "1e16"],
      "must be a size",
    );
    refuses(parseBytes, ["5M/s"], "such as 4096, 64k or 1M");
    assertEquals(parseBytes("0", { least: 0 }), 0);
    refuses((text) => parseBytes(text, { least: 10 }), ["9"], "at least 10");
    refuses((text) => parseBytes(text, { most: 65_536 }), ["65537"], "at most 64k");
  });

  test("durations are in ms, a bare number is seconds", () => {
    parses(parseDuration, {
      "250ms": 250,
      "10s": 10_000,
      "10": 10_000,
      "0.5": 500,
      "2m": 120_000,
      "2min": 120_000,
      "1h": 3_600_000,
      "50us": 0.05,
      "50µs": 0.05,
      "50μs": 0.05,
    });
    refuses(parseDuration, [...NONSENSE, "0", "0s", "1d", "5S", "25h5"], "must be a duration");
    // setTimeout would fire at once.
    refuses(parseDuration, ["600h", "1e9h"], "at most");
    assertEquals(parseDuration("0", { least: 0 }), 0);
  });

  test("rates are decimal, in messages or bytes", () => {
    parses(parseRate, {
      "1M/s": { messagesPerSecond: 1e6 },
      "50k/s": { messagesPerSecond: 50_000 },
      "50k": { messagesPerSecond: 50_000 },
      "7": { messagesPerSecond: 7 },
      "0.5/s": { messagesPerSecond: 0.5 },
      "20MB/s": { bytesPerSecond: 20e6 },
      "20 MB/s": { bytesPerSecond: 20e6 },
      "1.5GB/s": { bytesPerSecond: 1.5e9 },
      "64KiB/s": { bytesPerSecond: 65_536 },
      "10B/s": { bytesPerSecond: 10 },
      "1e15": { messagesPerSecond: 1e15 },
      max: "max",
      " max ": "max",
    });
    const wrong = NONSENSE.filter((text) => text.trim() !== "max");
    refuses(
      parseRate,
      [...wrong, "0", "0/s", "0MB/s", "1.1e15", "20Mb/s", "8Mbit/s"],
      "must be a rate",
    );
    refuses(parseRate, ["0", "0MB/s"], "above zero");
    parses(parseByteRate, { "20MB/s": 20e6, "500kB/s": 500_000, "500kB": 500_000 });
    refuses(parseByteRate, [...NONSENSE, "0B/s", "20M/s", "7", "max"], "must be bytes per second");
  });

  test("counts, shares, ports", () => {
    parses(parseCount, { "1": 1, "200": 200 });
    refuses(parseCount, [...NONSENSE, "0", "1.5", "1k"], "must be a whole number");
    parses(parseFraction, { "1%": 0.01, "0.01": 0.01, "0": 0, "100 %": 1, "0.5%": 0.005 });
    refuses(parseFraction, [...NONSENSE, "2", "101%"], "must be a share");
    parses(parsePort, { "1": 1, "65535": 65_535 });
    refuses(
      parsePort,
      [...NONSENSE, "0", "65536", "8e3", "80.5"],
      "must be a port from 1 to 65535",
    );
    assertEquals(parsePort("0", { least: 0 }), 0);
  });

  test("host and port, IPv6 in brackets", () => {
    parses(parseHostPort, {
      "127.0.0.1:8000": { host: "127.0.0.1", port: 8000 },
      "localhost:80": { host: "localhost", port: 80 },
      "my-host.example:65535": { host: "my-host.example", port: 65_535 },
      "[::1]:8000": { host: "::1", port: 8000 },
      "[fe80::1%eth0]:8000": { host: "fe80::1%eth0", port: 8000 },
      "[fe80::1%br-1.20]:8000": { host: "fe80::1%br-1.20", port: 8000 },
    });
    const wrong = [
      "8000",
      ":8000",
      "::1:8000",
      "[::1]",
      "[]:1",
      "[1]:1",
      "a:",
      "a:b",
      "http://a:80",
    ];
    refuses(parseHostPort, [...NONSENSE, ...wrong, "a b:80", "a:80/x"], "must be HOST:PORT");
    refuses(parseHostPort, ["a:0", "a:70000"], "must be a port");
    for (const text of ["127.0.0.1:8000", "[::1]:8000"]) {
      assertEquals(formatHostPort(parseHostPort(text)), text);
    }
  });
});

describe("what is printed", () => {
  const prints = (format: (value: number) => string, table: readonly [number, string][]) => {
    for (const [value, text] of table) assertEquals(format(value), text);
  };

  test("three digits and a decimal prefix", () => {
    prints(formatByteRate, [[20_150_000, "20.2 MB/s"], [999_499, "999 kB/s"], [
      999_500,
      "1.00 MB/s",
    ]]);
    prints(formatBytes, [[0, "0 B"], [13, "13 B"], [999, "999 B"], [3_932_160, "3.93 MB"]]);
    prints(formatBytes, [[999.6, "1.00 kB"], [0.5, "0.500 B"], [-2500, "-2.50 kB"]]);
    prints(formatBytes, [[5e12, "5.00 TB"], [5e18, "5000 PB"]]);
    prints(formatCount, [[1_550_000, "1.55 M"], [7, "7"], [1000, "1.00 k"], [0, "0"]]);
  });

  test("times", () => {
    prints(formatSeconds, [[12.34, "12.3 s"], [1, "1.00 s"], [0.25, "250 ms"], [0, "0 s"]]);
    prints(formatSeconds, [[0.9996, "1.00 s"], [50e-6, "50.0 µs"], [999.7, "1000 s"], [
      7200,
      "7200 s",
    ]]);
  });

  test("sizes as they are typed", () => {
    for (const text of ["10", "64k", "1M", "3G", "1000", "1025"]) {
      assertEquals(formatSize(parseBytes(text)), text);
    }
  });
});
