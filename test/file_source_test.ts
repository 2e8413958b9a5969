/** The source of a file or standard input: positions, schedules and ends, with a made-up clock and input. */
import { createHash } from "node:crypto";
import { EventEmitter } from "node:events";
import {
  existsSync,
  mkdtempSync,
  readdirSync,
  readlinkSync,
  realpathSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { describe, test } from "node:test";
import { setImmediate } from "node:timers";
import { assert, assertEquals, assertRejects, assertThrows } from "#std/assert";
import type { Frame } from "../src/message/framer.ts";
import type { Ticker } from "../src/send/pacer.ts";
import { FILE_KIND, FileSource, type FileSourceOptions } from "../src/source/file_source.ts";
import type { Sink, SourceEvent } from "../src/source/source.ts";
import { within } from "./within.ts";

const MIB = 1 << 20;
const LINE: Frame = { kind: "line" };
const NONE: Frame = { kind: "none" };
/** Bytes by which a file is known. */
const BEGINNING = 0xffff;

/** Lets all go on that only waits for promises. */
async function turns(count = 50): Promise<void> {
  for (let i = 0; i < count; i++) await Promise.resolve();
}

/** Notes what it gets. `onPush` may make the source wait. */
class MadeSink implements Sink {
  readonly pushes: [text: string, messages: number, position: number][] = [];
  readonly events: SourceEvent[] = [];
  #inside = false;
  readonly #onPush: (count: number) => void | Promise<void>;

  constructor(onPush: (count: number) => void | Promise<void> = () => {}) {
    this.#onPush = onPush;
  }

  push(bytes: Uint8Array, messages: number, position: number): void | Promise<void> {
    // A mistake would push nothing, or the same, for ever.
    assert(bytes.length > 0 && messages > 0 && this.pushes.length < 100);
    assert(!this.#inside, "one push at a time");
    this.pushes.push([new TextDecoder().decode(bytes), messages, position]);
    const waiting = this.#onPush(this.pushes.length);
    if (waiting === undefined) return;
    this.#inside = true;
    return waiting.finally(() => this.#inside = false);
  }

  note(event: SourceEvent): void {
    this.events.push(event);
  }

  get text(): string {
    return this.pushes.map(([text]) => text).join("");
  }

  /** The events but for `opened`, in short. */
  get rest(): string[] {
    return this.events.flatMap((event) =>
      event.event === "opened"
        ? []
        : event.event === "ended"
        ? [`ended ${event.discarded}`]
        : event.event === "bad-frame"
        ? [`bad ${event.count}`]
        : [event.event]
    );
  }

  get opened(): { stream: string; position: number }[] {
    return this.events.flatMap((event) =>
      event.event === "opened" ? [{ stream: event.stream, position: event.position }] : []
    );
  }
}

async function withFile(
  content: string | Uint8Array,
  run: (path: string) => Promise<void>,
): Promise<void> {
  const folder = mkdtempSync(join(tmpdir(), "speedlimit-file-"));
  try {
    const path = join(realpathSync(folder), "feed");
    writeFileSync(path, content);
    await run(path);
  } finally {
    rmSync(folder, { recursive: true });
  }
}

/** Runs a source to its end. */
async function read(
  options: FileSourceOptions,
  sink: MadeSink,
  from = 0,
  stream?: string,
): Promise<void> {
  const source = new FileSource(options);
  await within("the source's end", 1500, source.run(sink, from, stream))
    .finally(() => source.stop());
}

/** What a file with this beginning is called. */
function streamOf(content: string): string {
  const beginning = content.slice(0, BEGINNING);
  return beginning.length.toString(16).padStart(4, "0") +
    createHash("sha256").update(beginning).digest("hex").slice(0, 12);
}

/** How often this process has the file open; undefined: unknown. */
function opensOf(path: string): number | undefined {
  const folder = "/proc/self/fd";
  if (!existsSync(folder)) return undefined;
  return readdirSync(folder).filter((name) => {
    try {
      return readlinkSync(join(folder, name)) === path;
    } catch {
      // It was the one of the folder itself.
      return false;
    }
  }).length;
}

describe("the positions of a file", () => {
  test("count its bytes, and each read is of 1 MiB", () =>
    withFile("x".repeat(MIB) + "12345", async (path) => {
      const sink = new MadeSink();
      await read({ path, frame: NONE }, sink);
      const pushed = sink.pushes.map(([text, ...rest]) => [text.length, ...rest]);
      assertEquals(pushed, [[MIB, 1, 0], [5, 1, MIB]]);
      assertEquals(sink.pushes[1]![0], "12345");
      assertEquals(sink.rest, ["ended 0"]);
      assert((opensOf(path) ?? 0) === 0);
    }));

  test("go on where an earlier run was, if it is the same file", () =>
    withFile("one\ntwo\nthree\n", async (path) => {
      const stream = streamOf("one\ntwo\n");
      for (
        const [from, known, text, opened] of [
          [8, stream, "three\n", { stream, position: 8 }],
          [13, stream, "\n", { stream, position: 13 }],
          [14, stream, "", { stream, position: 14 }],
          [8, streamOf("one\nTwo\n"), "one\ntwo\nthree\n", undefined],
          [8, streamOf("one\ntwo\nthree\nfour\n"), "one\ntwo\nthree\n", undefined],
          [8, undefined, "one\ntwo\nthree\n", undefined],
        ] as const
      ) {
        const sink = new MadeSink();
        await read({ path, frame: LINE }, sink, from, known);
        assertEquals(sink.text, text);
        const whole = { stream: streamOf("one\ntwo\nthree\n"), position: 0 };
        assertEquals(sink.opened, [opened ?? whole]);
        if (text !== "") assertEquals(sink.pushes[0]![2], sink.opened[0]!.position);
      }
      const { message } = await assertRejects(
        () => read({ path, frame: LINE }, new MadeSink(), 15, stream),
        Error,
      );
      assertEquals(
        message,
        `cannot read ${JSON.stringify(path)}: it has 14 bytes but was read up to 15 before: ` +
          "was it cut, or is it another file?",
      );
      assert((opensOf(path) ?? 0) === 0);
    }));

  test("are those of a stream named after its first 65535 bytes", async () => {
    const long = Array.from({ length: 9000 }, (_, i) => `line ${i}\n`).join("");
    for (const content of ["x", "0123456789abcdefghi\n", long]) {
      await withFile(content, async (path) => {
        const first = new MadeSink();
        await read({ path, frame: LINE }, first);
        assertEquals(first.opened, [{ stream: streamOf(content), position: 0 }]);
        // It has grown.
        writeFileSync(path, content + "more\n");
        const second = new MadeSink();
        await read({ path, frame: LINE }, second, content.length, streamOf(content));
        assertEquals([second.text, second.opened[0]!.position], ["more\n", content.length]);
      });
    }
    await withFile("", async (path) => {
      const sink = new MadeSink();
      await read({ path, frame: LINE }, sink, 8, streamOf("one\ntwo\n"));
      assertEquals([sink.pushes, sink.opened, sink.rest], [[], [], ["ended 0"]]);
    });
  });

  test("also count what is skipped, which is told before the end", () =>
    withFile("one\n123456789\ntwo\n12345678\nthree\n", async (path) => {
      const sink = new MadeSink();
      await read({ path, frame: LINE, maxMessage: 8, onBadFrame: "skip" }, sink);
      assertEquals(sink.pushes, [["one\n", 1, 0], ["two\n", 1, 14], ["three\n", 1, 27]]);
      assertEquals(sink.rest, ["bad 1", "bad 2", "ended 0"]);
      const failing = new MadeSink((count) => {
        if (count === 3) return Promise.reject(new Error("no room"));
      });
      await assertRejects(
        () => read({ path, frame: LINE, maxMessage: 8, onBadFrame: "skip" }, failing),
        Error,
        "no room",
      );
      assertEquals(failing.rest, ["bad 1", "bad 2"]);
      const strict = new MadeSink();
      const { message } = await assertRejects(
        () => read({ path, frame: LINE, maxMessage: 8 }, strict),
        Error,
      );
      assert(message.startsWith(`invalid data in ${JSON.stringify(path)}: a line is longer`));
      assertEquals([strict.text, strict.rest], ["one\n", ["bad 1"]]);
    }));
});

describe("the end of a file", () => {
  test("a last line without its end is delivered, another rest told of", async () => {
    const fixed: Frame = { kind: "fixed", size: 3 };
    for (
      const [content, frame, pushes, discarded] of [
        ["one\n2", LINE, [["one\n", 1, 0], ["2", 1, 4]], 0],
        ["one\n", LINE, [["one\n", 1, 0]], 0],
        ["12345", fixed, [["123", 1, 0]], 2],
        ["1234", fixed, [["123", 1, 0]], 1],
      ] as const
    ) {
      await withFile(content, async (path) => {
        const sink = new MadeSink();
        await read({ path, frame }, sink);
        assertEquals(sink.pushes, pushes.map((push) => [...push]));
        assertEquals(sink.rest, [`ended ${discarded}`]);
      });
    }
  });

  test("stopped: nothing more is delivered, and nothing told", async () => {
    // In the middle; in the last line, which lacks its end.
    for (const [at, text] of [[1, "one\n"], [2, "one\ntwo"]] as const) {
      await withFile("one\ntwo", async (path) => {
        const source = new FileSource({ path, frame: LINE });
        const sink = new MadeSink((count) => {
          if (count === at) source.stop();
        });
        await within("the end", 1500, source.run(sink, 0));
        assertEquals([sink.text, sink.rest], [text, []]);
        assert((opensOf(path) ?? 0) === 0);
      });
    }
    // At any moment between two pushes: also while the next bytes are read.
    await withFile("x".repeat(MIB) + "12345", async (path) => {
      for (let moment = 0; moment < 30; moment++) {
        const source = new FileSource({ path, frame: NONE });
        let stopped: [pushes: number, rest: string[]] | undefined;
        const sink: MadeSink = new MadeSink((count) => {
          if (count > 1) return;
          void turns(moment).then(() => {
            source.stop();
            stopped = [sink.pushes.length, sink.rest];
          });
        });
        await within("the end", 1500, source.run(sink, 0));
        // It may have ended before.
        if (stopped !== undefined) assertEquals([sink.pushes.length, sink.rest], stopped);
      }
    });
  });

  test("what cannot be read is told in one line", async () => {
    const folder = tmpdir();
    const missing = join(folder, "speedlimit-no-such-file");
    for (
      const [path, expected] of [
        [missing, "there is no such file"],
        [folder, "it is a directory"],
        ["/dev/null", "it is not a regular file; use standard input (-) instead"],
      ] as const
    ) {
      const { message } = await assertRejects(
        () => read({ path, frame: LINE }, new MadeSink()),
        Error,
      );
      assertEquals(message, `cannot read ${JSON.stringify(path)}: ${expected}`);
    }
  });
});

/** A clock that moves when the test says so: how much is due is told with it. */
class MadeTicker {
  added = 0;
  removed = 0;
  /** Settles once something waits for ticks. */
  readonly begun = Promise.withResolvers<void>();
  #listener: ((nowMs: number) => void) | undefined;

  add(listener: (nowMs: number) => void): () => void {
    this.added++;
    this.#listener = listener;
    this.begun.resolve();
    return () => {
      this.removed++;
      this.#listener = undefined;
    };
  }

  /** So much is due in all. It is half of one more, so that the time which passes meanwhile changes nothing. */
  async due(count: number): Promise<void> {
    this.#listener!(performance.now() + (count + 0.5) * EACH_MS);
    await turns();
  }
}

/** At the rate of these tests one byte or message is due after so long: more than a test lasts. */
const EACH_MS = 1e9;
const RATE = 1000 / EACH_MS;

/** Reads a file by a schedule: after each tick these pushes have come; then it has ended. */
async function replay(
  content: string,
  frame: Frame,
  rate: { bytesPerSecond: number } | { messagesPerSecond: number },
  steps: readonly (readonly [due: number, ...pushes: (readonly [string, number])[]])[],
): Promise<void> {
  await withFile(content, async (path) => {
    const ticker = new MadeTicker();
    const sink = new MadeSink();
    const source = new FileSource({ path, frame, rate, ticker: ticker as unknown as Ticker });
    const running = source.run(sink, 0);
    try {
      await within("the first tick", 1500, ticker.begun.promise);
      await turns();
      let [seen, position] = [0, 0];
      assertEquals(sink.pushes, []);
      for (const [due, ...pushes] of steps) {
        await ticker.due(due);
        if (due === steps.at(-1)![0]) await within("the end", 1500, running);
        const expected = pushes.map(([text, messages]) => {
          position += text.length;
          return [text, messages, position - text.length];
        });
        assertEquals(sink.pushes.slice(seen) as unknown[], expected, `${due} are due`);
        seen = sink.pushes.length;
      }
    } finally {
      source.stop();
    }
    assertEquals([ticker.added, ticker.removed > 0], [1, true]);
    assertEquals(sink.rest, ["ended 0"]);
  });
}

describe("a schedule", () => {
  test("in messages: each when it is due", async () => {
    const rate = { messagesPerSecond: RATE };
    await replay("one\ntwo\nthree\nfour\nfive\nsix", LINE, rate, [
      [0],
      [1, ["one\n", 1]],
      [1],
      [2, ["two\n", 1]],
      [4, ["three\nfour\n", 2]],
      // The last line comes by itself.
      [5, ["five\n", 1]],
      [6, ["six", 1]],
    ]);
    await replay("abcdef", { kind: "fixed", size: 1 }, rate, [
      [1, ["a", 1]],
      [2, ["b", 1]],
      [5, ["cde", 3]],
      [100, ["f", 1]],
    ]);
    await replay("one\ntwo\nthree\n", LINE, rate, [
      [1, ["one\n", 1]],
      [2, ["two\n", 1]],
      [9, ["three\n", 1]],
    ]);
    await replay("one\ntwo\nthree\n", LINE, rate, [[3, ["one\ntwo\nthree\n", 3]]]);
  });

  test("in bytes: each message when its last byte is due", async () => {
    const rate = { bytesPerSecond: RATE };
    await replay("one\ntwo\nthree\nend", LINE, rate, [
      [0],
      [3],
      [4, ["one\n", 1]],
      [6],
      [7],
      [8, ["two\n", 1]],
      [13],
      [14, ["three\n", 1]],
      [16],
      [17, ["end", 1]],
    ]);
    await replay("one\ntwo\nthree\nend", LINE, rate, [
      [9, ["one\ntwo\n", 2]],
      [15, ["three\n", 1]],
      [100, ["end", 1]],
    ]);
    await replay("aabbccdd", { kind: "fixed", size: 2 }, rate, [
      [3, ["aa", 1]],
      [7, ["bbcc", 2]],
      [8, ["dd", 1]],
    ]);
    // Without a frame: whatever is due, each a message.
    await replay("abcdefgh", NONE, rate, [
      [1, ["a", 1]],
      [1],
      [4, ["bcd", 1]],
      [7, ["efg", 1]],
      [8, ["h", 1]],
    ]);
  });

  test("waits for a sink that takes its time; what is due meanwhile stays due", () =>
    withFile("one\ntwo\nthree\nfour\n", async (path) => {
      const ticker = new MadeTicker();
      const gate = Promise.withResolvers<void>();
      const sink = new MadeSink((count) => count === 1 ? gate.promise : undefined);
      const source = new FileSource({
        path,
        frame: LINE,
        rate: { messagesPerSecond: RATE },
        ticker: ticker as unknown as Ticker,
      });
      const running = source.run(sink, 0);
      await within("the first tick", 1500, ticker.begun.promise);
      await ticker.due(1);
      await ticker.due(3);
      assertEquals(sink.pushes, [["one\n", 1, 0]]);
      gate.resolve();
      await turns();
      assertEquals(sink.pushes.slice(1), [["two\nthree\n", 2, 4]]);
      // Stopped while the next is not due.
      source.stop();
      await within("the end", 1500, running);
      assertEquals([sink.pushes.length, sink.rest], [2, []]);
      assertEquals([ticker.added, ticker.removed > 0], [1, true]);
    }));

  test("ends with the sink's mistake, and leaves no timer behind", () =>
    withFile("one\ntwo\n", async (path) => {
      const ticker = new MadeTicker();
      const sink = new MadeSink(() => Promise.reject(new Error("no room")));
      const source = new FileSource({
        path,
        frame: LINE,
        rate: { messagesPerSecond: RATE },
        ticker: ticker as unknown as Ticker,
      });
      const failing = assertRejects(() => source.run(sink, 0), Error, "no room");
      await within("the first tick", 1500, ticker.begun.promise);
      await ticker.due(1);
      await within("the end", 1500, failing);
      assertEquals([ticker.added, ticker.removed], [1, 1]);
    }));
});

/** A standard input that gives what the test says, and notes what it is told. */
class MadeInput extends EventEmitter {
  readonly calls: string[] = [];

  pause(): void {
    this.calls.push("pause");
  }
  resume(): void {
    this.calls.push("resume");
  }
  unref(): void {
    this.calls.push("unref");
  }
  destroy(): void {
    this.calls.push("destroy");
  }

  async feed(text: string): Promise<void> {
    this.emit("data", new TextEncoder().encode(text));
    await turns();
  }
}

/** Runs a source with this standard input; the test has it until it has ended. */
async function withInput(
  sink: MadeSink,
  options: Omit<FileSourceOptions, "path">,
  run: (input: MadeInput, source: FileSource, running: Promise<void>) => Promise<void>,
): Promise<void> {
  const before = Object.getOwnPropertyDescriptor(process, "stdin")!;
  const input = new MadeInput();
  Object.defineProperty(process, "stdin", { configurable: true, value: input });
  try {
    const source = new FileSource({ path: "-", ...options });
    const running = source.run(sink, 0);
    // It is waited for later.
    running.catch(() => {});
    await turns();
    await run(input, source, running);
    assertEquals(input.calls.slice(-3), ["pause", "unref", "destroy"]);
    // What becomes of it then is nobody's mistake.
    if (input.listenerCount("error") > 0) input.emit("error", new Error("late"));
    await new Promise((resolve) => setImmediate(resolve));
  } finally {
    Object.defineProperty(process, "stdin", before);
  }
}

describe("standard input", () => {
  test("is paused after each chunk until that is taken, and has no positions", async () => {
    const gate = Promise.withResolvers<void>();
    const sink = new MadeSink((count) => count === 2 ? gate.promise : undefined);
    await withInput(sink, { frame: LINE }, async (input, source, running) => {
      assertEquals(source.replayable, false);
      assertEquals(input.calls, ["resume"]);
      await input.feed("one\ntw");
      assertEquals([sink.text, input.calls.join(" ")], ["one\n", "resume pause resume"]);
      input.calls.length = 0;
      await input.feed("o\nthree\n");
      // The sink takes its time.
      assertEquals(input.calls, ["pause"]);
      gate.resolve();
      await turns();
      assertEquals(input.calls, ["pause", "resume"]);
      // More than was asked for is not lost.
      input.emit("data", new TextEncoder().encode("four\n"));
      await input.feed("five\nsi");
      input.emit("end");
      await within("the end", 1500, running);
    });
    assertEquals(sink.text, "one\ntwo\nthree\nfour\nfive\nsi");
    assert(sink.pushes.every(([, , position]) => position === 0));
    assertEquals(sink.events, [{ event: "ended", discarded: 0 }]);
  });

  test("has no positions where something is skipped", async () => {
    const sink = new MadeSink();
    const options = { frame: LINE, maxMessage: 8, onBadFrame: "skip" } as const;
    await withInput(sink, options, async (input, _, running) => {
      await input.feed("one\n123456789\ntwo\n");
      input.emit("close");
      await within("the end", 1500, running);
    });
    assertEquals(sink.pushes, [["one\n", 1, 0], ["two\n", 1, 0]]);
    assertEquals(sink.rest, ["bad 1", "ended 0"]);
  });

  test("that fails is told of by its name", async () => {
    await withInput(new MadeSink(), { frame: LINE }, async (input, _, running) => {
      input.emit("error", Object.assign(new Error("what it says"), { code: "EIO" }));
      const failing = assertRejects(() => running, Error);
      const { message } = await within("the end", 1500, failing);
      assertEquals(message, "cannot read standard input: what it says");
    });
  });

  test("stopped while it waits: nothing more is told", async () => {
    const sink = new MadeSink();
    await withInput(sink, { frame: LINE }, async (input, source, running) => {
      await input.feed("one\ntwo");
      source.stop();
      await within("the end", 1500, running);
    });
    assertEquals([sink.text, sink.events], ["one\n", []]);
  });
});

describe("on the command line", () => {
  const parse = (text: string) => FILE_KIND.parse(text);

  test("a file, or - for standard input", () => {
    for (const text of ["", "tcp://host:1", "x://"]) assertEquals(parse(text), undefined);
    for (const [text, name] of [["-", "standard input"], ["a:b", "a:b"], ["./-", "./-"]]) {
      const { open, ...rest } = parse(text!)!;
      assertEquals(typeof open, "function");
      assertEquals(
        rest,
        {
          ...{ name, takesRate: true, acknowledges: false, reconnects: false },
          onBadFrame: ["stop", "skip"],
        } as typeof rest,
      );
    }
  });

  test("what cannot be read is told at once", () =>
    withFile("one\n", (path) => {
      const opened = parse(path)!.open({ frame: LINE });
      assert(opened instanceof FileSource && opened.replayable);
      assertEquals(opensOf(path) ?? 0, 0);
      const input = parse("-")!.open({ frame: LINE });
      assert(input instanceof FileSource && !input.replayable);
      const missing = `${path}-missing`;
      const cases: [path: string, why: string][] = [
        [missing, "there is no such file"],
        [tmpdir(), "it is a directory, not a file"],
        ["/dev/null", "it is not a regular file; pipe it into the server with --source -"],
      ];
      for (const [path, why] of cases) {
        const { message } = assertThrows(() => parse(path)!.open({ frame: LINE }), Error);
        assertEquals(message, `cannot read the source ${path}: ${why}`);
      }
      // Not even root may read these.
      const secret = "/sys/bus/platform/drivers_probe";
      if (existsSync(secret)) {
        assertThrows(() => parse(secret)!.open({ frame: LINE }), Error, `the source ${secret}: `);
      }
      assertThrows(
        () => parse(path)!.open({ frame: LINE, onBadFrame: "reconnect" }),
        Error,
        `${path} is not a server to connect to again`,
      );
      return Promise.resolve();
    }));
});
