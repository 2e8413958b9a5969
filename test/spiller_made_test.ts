/** Which blocks go to the log, and when: over a made log and a made clock. */
import { describe, test } from "node:test";
import { assert, assertEquals } from "#std/assert";
import { type Batch, endOf, type Log, QueueFull, Unavailable } from "../src/queue/queue.ts";
import { Blocks } from "../src/relay/blocks.ts";
import { Spiller } from "../src/relay/spiller.ts";
import { type MadeClock, settle, withClock } from "./made_clock.ts";

/** A batch that the log was given, until the test decides what becomes of it. */
interface Append {
  offset: number;
  end: number;
  messages: number;
  after: number | undefined;
  stored: () => Promise<void>;
  fails: (error: Error) => Promise<void>;
}

const FULL = new QueueFull("the queue is full", "max");
const DISK_FULL = new QueueFull("the disk is full", "disk");

/** A spiller whose log stores nothing until the test says so. */
class Made {
  readonly blocks: Blocks = new Blocks(1 << 20, () => {});
  /** All that the log was given, in this order. */
  readonly appends: Append[] = [];
  /** What the spiller told of the queue: why it is full, and its errors. */
  readonly told: unknown[] = [];
  /** What `stored` was at each `onStored`. */
  readonly storedAt: number[] = [];
  onStored: () => void = () => {};
  /** The blocks before which `beforeRun` was called; the test lets it end. */
  readonly runs: { start: number; ends: () => void; fails: (error: Error) => void }[] = [];
  /** The calls of `makeRoom`; the test lets them end. */
  readonly rooms: { made: (made: boolean) => void; fails: (error: Error) => void }[] = [];
  readonly spiller: Spiller;
  readonly clock: MadeClock;
  end: number;

  constructor(clock: MadeClock, options: { makesRoom?: boolean; logEnd?: number } = {}) {
    const { makesRoom = false, logEnd = 0 } = options;
    this.clock = clock;
    this.end = logEnd;
    const log: Pick<Log, "append" | "end"> = {
      end: logEnd,
      append: (batch, after) => this.#append(batch, after),
    };
    this.spiller = new Spiller({
      log: log as Log,
      blocks: this.blocks,
      beforeRun: (start) => {
        const { promise, resolve, reject } = Promise.withResolvers<void>();
        this.runs.push({ start, ends: resolve, fails: reject });
        return promise;
      },
      onStored: () => {
        this.storedAt.push(this.spiller.stored);
        this.onStored();
      },
      onFull: (why) => this.told.push(why),
      makeRoom: makesRoom
        ? () => {
          const { promise, resolve, reject } = Promise.withResolvers<boolean>();
          this.rooms.push({ made: resolve, fails: reject });
          return promise;
        }
        : undefined,
      onError: (error) => this.told.push(error),
    });
  }

  #append(batch: Batch, after?: number): Promise<void> {
    const { offset, messages } = batch;
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    this.appends.push({
      ...{ offset, end: endOf(batch), messages, after },
      stored: () => (resolve(), settle()),
      fails: (error) => (reject(error), settle()),
    });
    return promise;
  }

  /** Adds a block that is full, of so many bytes. */
  push(bytes = 100): void {
    this.add(bytes);
    this.blocks.last!.sealed = true;
  }

  /** Adds messages to a block that has room for more. */
  add(bytes: number): void {
    this.blocks.push(new Uint8Array(bytes), 3, this.end);
    this.end += bytes;
  }

  /** Adds as many full blocks, of 100 bytes each. */
  pushAll(count: number): void {
    for (let i = 0; i < count; i++) this.push();
  }

  /** The offsets of all batches that the log was given. */
  get given(): number[] {
    return this.appends.map(({ offset }) => offset);
  }

  get last(): Append {
    return this.appends.at(-1)!;
  }

  async pass(ms: number): Promise<void> {
    this.clock.pass(ms);
    await settle();
  }
}

/** A test with a spiller of its own. */
const spills = (
  title: string,
  body: (made: Made) => Promise<void> | void,
  options: { makesRoom?: boolean; logEnd?: number } = {},
): Promise<void> | void => test(title, () => withClock((clock) => body(new Made(clock, options))));

/** Whether this has ended; it must not fail. */
function watch(promise: Promise<void>): { ended: boolean } {
  const watched = { ended: false };
  promise.then(() => watched.ended = true);
  return watched;
}

describe("blocks are stored", () => {
  spills("only after the start, each with its bytes, its messages and its place", async (made) => {
    const { spiller } = made;
    made.push(100);
    made.push(50);
    spiller.appendReady();
    assertEquals([spiller.on, made.given], [false, []]);
    spiller.start();
    assertEquals([spiller.on, spiller.stored, spiller.full], [true, 0, undefined]);
    const places = made.appends.map(({ offset, end, messages, after }) => [
      ...[offset, end, messages, after],
    ]);
    assertEquals(places, [[0, 100, 3, 0], [100, 150, 3, 100]]);
    await made.appends[0]!.stored();
    await made.appends[1]!.stored();
    assertEquals([spiller.stored, made.storedAt], [150, [100, 150]]);
    assertEquals([made.told, made.runs, made.clock.timers], [[], [], 0]);
  });

  spills("from where the log ends", async (made) => {
    made.push(100);
    made.spiller.start();
    assertEquals([made.given, made.last.after, made.runs], [[700], 700, []]);
    await made.last.stored();
    assertEquals(made.spiller.stored, 100);
  }, { logEnd: 700 });

  spills("up to 16 at a time", async (made) => {
    made.pushAll(20);
    made.spiller.start();
    assertEquals(made.given, Array.from({ length: 16 }, (_, i) => 100 * i));
    await made.appends[0]!.stored();
    assertEquals(made.given.length, 17);
    made.spiller.appendReady();
    assertEquals(made.given.length, 17);
    for (let i = 1; i < 20; i++) await made.appends[i]!.stored();
    assertEquals([made.given.length, made.spiller.stored], [20, 2000]);
  });

  spills("while its memory is used for nothing else, and until the log has it", async (made) => {
    made.push();
    const block = made.blocks.first!;
    let pinsThen: number | undefined;
    made.onStored = () => pinsThen = block.pins;
    made.spiller.start();
    assertEquals(block.pins, 1);
    await made.last.stored();
    assertEquals([pinsThen, block.pins, made.storedAt], [0, 0, [100]]);
    made.push();
    const next = made.blocks.last!;
    made.spiller.appendReady();
    assertEquals(next.pins, 1);
    await made.last.fails(FULL);
    assertEquals(next.pins, 0);
  });
});

describe("a block that has room for more", () => {
  spills("is stored 20 ms after its first message", async (made) => {
    made.spiller.start();
    made.add(100);
    await made.pass(5);
    made.spiller.appendReady();
    assertEquals([made.given, made.clock.timers], [[], 1]);
    made.add(10);
    made.spiller.appendReady();
    assertEquals([made.given, made.clock.timers], [[], 1]);
    await made.pass(14.5);
    assertEquals(made.given, []);
    await made.pass(0.5);
    assertEquals([made.given, made.last.end, made.last.messages], [[0], 110, 6]);
    assert(made.blocks.first!.sealed, "what comes later must have a block of its own");
    // The next one waits just as long.
    made.add(10);
    made.spiller.appendReady();
    assertEquals([made.given.length, made.clock.timers], [1, 1]);
    await made.pass(20);
    assertEquals(made.given, [0, 110]);
  });

  spills("is stored at once where it has waited before the start", (made) => {
    made.add(100);
    made.clock.pass(20);
    made.spiller.start();
    assertEquals([made.given, made.clock.timers], [[0], 0]);
  });

  spills("is not stored any earlier where the start comes just before that", (made) => {
    made.add(100);
    made.clock.pass(19.5);
    made.spiller.start();
    assertEquals([made.given, made.clock.timers], [[], 1]);
    made.clock.pass(0.5);
    assertEquals(made.given, [0]);
  });

  spills("waits no longer once it is full", (made) => {
    made.spiller.start();
    made.add(100);
    made.spiller.appendReady();
    made.blocks.last!.sealed = true;
    made.spiller.appendReady();
    assertEquals(made.given, [0]);
  });

  for (const how of ["stop", "end"] as const) {
    spills(`is not stored after ${how}`, async (made) => {
      made.spiller.start();
      made.add(100);
      made.spiller.appendReady();
      made.spiller[how]();
      assertEquals([made.spiller.on, made.clock.timers], [false, 0]);
      await made.pass(1000);
      made.push();
      made.spiller.appendReady();
      assertEquals(made.given, []);
    });
  }

  spills("is stored where the spiller was stopped and started again", async (made) => {
    made.spiller.start();
    made.add(100);
    made.spiller.appendReady();
    made.spiller.stop();
    made.spiller.start();
    assertEquals([made.given, made.clock.timers], [[], 1]);
    await made.pass(20);
    assertEquals(made.given, [0]);
  });
});

describe("a flush", () => {
  spills("stores all at once, and ends when that is stored", async (made) => {
    made.push();
    made.add(10);
    const flush = watch(made.spiller.flush());
    assertEquals([made.given, made.spiller.on], [[0, 100], true]);
    await made.appends[0]!.stored();
    assertEquals(flush.ended, false);
    await made.appends[1]!.stored();
    assertEquals([flush.ended, made.spiller.stored, made.clock.timers], [true, 110, 0]);
    // After it, a block waits for more again.
    made.add(10);
    made.spiller.appendReady();
    assertEquals([made.given.length, made.clock.timers], [2, 1]);
  });

  spills("ends at once where there is nothing to store", async (made) => {
    const flush = watch(made.spiller.flush());
    await settle();
    assertEquals([flush.ended, made.given], [true, []]);
  });

  spills("ends where the queue is full, whose refusal was told of before", async (made) => {
    made.pushAll(2);
    made.spiller.start();
    await made.appends[0]!.fails(FULL);
    await made.appends[1]!.fails(FULL);
    assertEquals(made.told, ["max"]);
    const flush = watch(made.spiller.flush());
    // At once, and not only when it is tried again in any case.
    assertEquals([made.given, made.spiller.full], [[0, 100, 0, 100], undefined]);
    await made.appends[2]!.fails(FULL);
    assertEquals(flush.ended, false);
    await made.appends[3]!.fails(FULL);
    assertEquals([flush.ended, made.told, made.spiller.full], [true, ["max"], "max"]);
    // It has room now: that is told.
    const second = watch(made.spiller.flush());
    await made.appends[4]!.stored();
    assertEquals(made.told, ["max", undefined]);
    await made.appends[5]!.stored();
    assertEquals([second.ended, made.told], [true, ["max", undefined]]);
  });

  spills("that is stopped says nothing of a queue that may still be full", async (made) => {
    made.push();
    made.spiller.start();
    await made.last.fails(FULL);
    const flush = watch(made.spiller.flush());
    made.spiller.stop();
    assertEquals([made.told, made.spiller.on], [["max"], false]);
    await made.last.fails(FULL);
    assertEquals([flush.ended, made.told, made.spiller.full], [true, ["max"], "max"]);
  });

  spills("waits for the room that is being made", async (made) => {
    made.push();
    made.spiller.start();
    await made.last.fails(FULL);
    const flush = watch(made.spiller.flush());
    await settle();
    assertEquals([flush.ended, made.given, made.rooms.length], [false, [0], 1]);
    made.rooms[0]!.made(true);
    await settle();
    assertEquals([flush.ended, made.given], [false, [0, 0]]);
    await made.last.stored();
    assertEquals([flush.ended, made.told], [true, ["max", undefined]]);
  }, { makesRoom: true });

  spills("ends where room cannot be made", async (made) => {
    made.push();
    made.spiller.start();
    await made.last.fails(FULL);
    const flush = watch(made.spiller.flush());
    made.rooms[0]!.made(false);
    await settle();
    assertEquals([flush.ended, made.given, made.told], [true, [0], ["max"]]);
  }, { makesRoom: true });

  spills("ends where what it was to store was delivered while room was made", async (made) => {
    made.push();
    made.spiller.start();
    await made.last.fails(FULL);
    const flush = watch(made.spiller.flush());
    made.blocks.release(made.end);
    made.rooms[0]!.made(true);
    await settle();
    assertEquals([flush.ended, made.given, made.told], [true, [0], ["max", undefined]]);
  }, { makesRoom: true });
});

describe("a block that does not continue what is stored", () => {
  spills("is stored once all before it is, and it was told of", async (made) => {
    made.push();
    made.end += 50;
    made.pushAll(2);
    made.spiller.start();
    await settle();
    assertEquals([made.given, made.runs.length], [[0], 0]);
    await made.last.stored();
    assertEquals([made.given, made.runs.map(({ start }) => start)], [[0], [150]]);
    // Meanwhile nothing is stored, whatever comes.
    made.push();
    made.spiller.appendReady();
    await settle();
    assertEquals([made.given, made.runs.length], [[0], 1]);
    made.runs[0]!.ends();
    await settle();
    assertEquals([made.given, made.runs.length], [[0, 150, 250, 350], 1]);
    assertEquals(made.appends[1]!.after, 100);
  });

  spills("waits for all before it", async (made) => {
    made.pushAll(2);
    made.end += 50;
    made.push();
    made.spiller.start();
    await made.appends[0]!.stored();
    assertEquals([made.given, made.runs.length], [[0, 100], 0]);
    await made.appends[1]!.stored();
    assertEquals([made.given, made.runs.length], [[0, 100], 1]);
  });

  spills("is waited for by a flush", async (made) => {
    made.end += 50;
    made.push();
    const flush = watch(made.spiller.flush());
    await settle();
    assertEquals([flush.ended, made.given, made.runs.length], [false, [], 1]);
    made.runs[0]!.ends();
    await settle();
    assertEquals([flush.ended, made.given], [false, [50]]);
    await made.last.stored();
    assertEquals(flush.ended, true);
  });

  spills("is not stored where that fails", async (made) => {
    made.end += 50;
    made.push();
    const flush = watch(made.spiller.flush());
    await settle();
    const error = new Error("no database");
    made.runs[0]!.fails(error);
    await settle();
    assertEquals([flush.ended, made.given, made.told], [true, [], [error]]);
    assertEquals([made.spiller.on, made.runs.length], [false, 1]);
  });

  spills("is told of once, also where it is refused at first", async (made) => {
    made.end += 50;
    made.push();
    made.spiller.start();
    await settle();
    made.runs[0]!.ends();
    await settle();
    await made.last.fails(FULL);
    await made.pass(250);
    assertEquals([made.given, made.runs.length], [[50, 50], 1]);
    await made.last.stored();
    assertEquals([made.spiller.stored, made.told], [100, ["max", undefined]]);
  });
});

describe("a queue that is full", () => {
  spills("is tried again every 250 ms, with one block", async (made) => {
    made.pushAll(3);
    made.spiller.start();
    const [first, second, third] = made.appends;
    await first!.stored();
    await second!.fails(FULL);
    assertEquals([made.spiller.full, made.told, made.clock.timers], ["max", ["max"], 0]);
    // What comes meanwhile waits.
    made.push();
    made.spiller.appendReady();
    assertEquals(made.given, [0, 100, 200]);
    // It fails because the one before it does, and says nothing new.
    await third!.fails(DISK_FULL);
    assertEquals([made.spiller.full, made.told, made.clock.timers], ["max", ["max"], 1]);
    await made.pass(249);
    assertEquals(made.given.length, 3);
    await made.pass(1);
    assertEquals([made.given.slice(3), made.last.after, made.clock.timers], [[100], 100, 0]);
    made.spiller.appendReady();
    await made.last.fails(DISK_FULL);
    // What was told of it is still so.
    assertEquals([made.spiller.full, made.told], ["max", ["max"]]);
    assertEquals([made.given.length, made.clock.timers], [4, 1]);
    await made.pass(250);
    assertEquals(made.given.slice(4), [100]);
    await made.last.stored();
    assertEquals([made.spiller.full, made.told], [undefined, ["max", undefined]]);
    // The others follow.
    assertEquals(made.given.slice(5), [200, 300]);
    await made.appends[5]!.stored();
    await made.appends[6]!.stored();
    assertEquals([made.spiller.stored, made.told.length, made.clock.timers], [400, 2, 0]);
    // It may become full once more.
    made.push();
    made.spiller.appendReady();
    await made.last.fails(DISK_FULL);
    assertEquals([made.spiller.full, made.told], ["disk", ["max", undefined, "disk"]]);
  });

  spills("has room where a block is stored that was under way", async (made) => {
    made.pushAll(2);
    made.spiller.start();
    await made.appends[0]!.fails(FULL);
    await made.appends[1]!.stored();
    assertEquals([made.spiller.full, made.told], [undefined, ["max", undefined]]);
  });

  spills("has room once nothing waits to be stored", async (made) => {
    made.push();
    made.spiller.start();
    await made.last.fails(FULL);
    made.blocks.release(made.end);
    await made.pass(250);
    assertEquals([made.spiller.full, made.told, made.given], [undefined, ["max", undefined], [0]]);
    made.push();
    made.spiller.appendReady();
    await settle();
    assertEquals([made.runs.map(({ start }) => start), made.clock.timers], [[100], 0]);
  });

  spills("has room where the spiller is stopped, as its readers have caught up", async (made) => {
    made.push();
    made.spiller.start();
    await made.last.fails(FULL);
    made.spiller.stop();
    assertEquals([made.spiller.full, made.told, made.clock.timers], [
      ...[undefined, ["max", undefined], 0],
    ]);
    made.spiller.start();
    assertEquals(made.given, [0, 0]);
  });

  spills("is not tried again after the end, nor told to have room", async (made) => {
    made.push();
    made.spiller.start();
    await made.last.fails(FULL);
    made.spiller.end();
    assertEquals([made.spiller.on, made.clock.timers], [false, 0]);
    await made.pass(1000);
    made.spiller.stop();
    assertEquals([made.given, made.told, made.spiller.full], [[0], ["max"], "max"]);
  });

  spills(
    "is tried again after the end of the pause, where it was started meanwhile",
    async (made) => {
      made.push();
      made.spiller.start();
      await made.last.fails(FULL);
      await made.pass(100);
      made.spiller.start();
      assertEquals([made.given, made.clock.timers], [[0], 1]);
      await made.pass(150);
      assertEquals(made.given, [0, 0]);
    },
  );

  spills("is not tried again by a spiller that was stopped before it was refused", async (made) => {
    made.push();
    made.spiller.start();
    made.spiller.stop();
    await made.last.fails(FULL);
    assertEquals([made.clock.timers, made.spiller.full], [0, "max"]);
    // Its next start tries it after the pause.
    made.spiller.start();
    assertEquals([made.given, made.clock.timers], [[0], 1]);
    await made.pass(250);
    assertEquals(made.given, [0, 0]);
  });

  spills("is not told of where it only cannot be reached", async (made) => {
    made.pushAll(2);
    made.spiller.start();
    await made.appends[0]!.fails(new Unavailable("no connection"));
    await made.appends[1]!.fails(new Unavailable("no connection"));
    assertEquals([made.spiller.full, made.told, made.clock.timers], ["disk", [], 1]);
    await made.pass(250);
    assertEquals(made.given, [0, 100, 0]);
    await made.last.stored();
    assertEquals([made.spiller.full, made.told, made.given.length], [undefined, [], 4]);
  });

  spills("stays full for that reason where it then cannot be reached", async (made) => {
    made.push();
    made.spiller.start();
    await made.last.fails(FULL);
    await made.pass(250);
    await made.last.fails(new Unavailable("no connection"));
    assertEquals([made.spiller.full, made.told], ["max", ["max"]]);
  });
});

describe("room is made in a queue that is full", () => {
  spills("at once, and then one block is tried", async (made) => {
    made.pushAll(3);
    made.spiller.start();
    await made.appends[0]!.fails(FULL);
    await made.appends[1]!.fails(FULL);
    assertEquals(made.rooms.length, 0, "while a block is under way");
    await made.appends[2]!.fails(FULL);
    assertEquals([made.rooms.length, made.clock.timers, made.given.length], [1, 0, 3]);
    // Once, however often it is started meanwhile.
    made.spiller.start();
    await settle();
    assertEquals([made.rooms.length, made.given.length], [1, 3]);
    made.rooms[0]!.made(true);
    await settle();
    assertEquals(made.given.slice(3), [0]);
    // Nor while that block is under way.
    made.spiller.start();
    await settle();
    assertEquals([made.rooms.length, made.given.length], [1, 4]);
    await made.last.stored();
    assertEquals([made.given.slice(4), made.told], [[100, 200], ["max", undefined]]);
  }, { makesRoom: true });

  spills("again after 250 ms where nothing could be deleted", async (made) => {
    made.push();
    made.spiller.start();
    await made.last.fails(FULL);
    made.rooms[0]!.made(false);
    await settle();
    assertEquals([made.given, made.clock.timers], [[0], 1]);
    await made.pass(249);
    assertEquals(made.rooms.length, 1);
    await made.pass(1);
    assertEquals([made.rooms.length, made.given], [2, [0]]);
    made.rooms[1]!.made(true);
    await settle();
    assertEquals(made.given, [0, 0]);
  }, { makesRoom: true });

  spills("again after 250 ms where that fails, which is told", async (made) => {
    made.push();
    made.spiller.start();
    await made.last.fails(FULL);
    const error = new Error("cannot delete");
    made.rooms[0]!.fails(error);
    await settle();
    assertEquals([made.told, made.given, made.clock.timers], [["max", error], [0], 1]);
    await made.pass(250);
    assertEquals(made.rooms.length, 2);
  }, { makesRoom: true });

  spills("and nothing is stored where the spiller was stopped meanwhile", async (made) => {
    made.push();
    made.spiller.start();
    await made.last.fails(FULL);
    made.spiller.stop();
    made.rooms[0]!.made(true);
    await settle();
    assertEquals([made.given, made.told], [[0], ["max", undefined]]);
  }, { makesRoom: true });

  spills("and it stays full where the spiller was ended meanwhile", async (made) => {
    made.push();
    made.spiller.start();
    await made.last.fails(FULL);
    made.spiller.end();
    made.rooms[0]!.made(true);
    await settle();
    assertEquals([made.given, made.told, made.spiller.full], [[0], ["max"], "max"]);
  }, { makesRoom: true });

  for (const how of ["stop", "end"] as const) {
    spills(`only by a spiller that is on: not after ${how}`, async (made) => {
      made.push();
      made.spiller.start();
      made.spiller[how]();
      await made.last.fails(FULL);
      assertEquals([made.rooms.length, made.clock.timers], [0, 0]);
    }, { makesRoom: true });
  }

  spills("and is not tried later by a spiller that was ended meanwhile", async (made) => {
    made.push();
    made.spiller.start();
    await made.last.fails(FULL);
    made.spiller.end();
    made.rooms[0]!.made(false);
    await settle();
    assertEquals(made.clock.timers, 0);
  }, { makesRoom: true });
});

describe("a queue that fails", () => {
  spills("is told of once, and gets nothing more", async (made) => {
    made.pushAll(2);
    made.spiller.start();
    const error = new Error("no disk");
    await made.appends[0]!.fails(error);
    assertEquals([made.told, made.spiller.on, made.spiller.full], [[error], false, undefined]);
    await made.appends[1]!.fails(new Error("no disk either"));
    assertEquals(made.told, [error]);
    made.spiller.start();
    assertEquals(made.spiller.on, false);
    const flush = watch(made.spiller.flush());
    await settle();
    assertEquals([flush.ended, made.spiller.on], [true, false]);
    assertEquals([made.given, made.clock.timers, made.spiller.stored], [[0, 100], 0, 0]);
  });

  spills("is told of once, also where what comes next fails, too", async (made) => {
    made.push();
    made.end += 50;
    made.push();
    made.spiller.start();
    const error = new Error("no disk");
    await made.last.fails(error);
    for (const { fails } of made.runs) fails(new Error("no database"));
    await settle();
    assertEquals([made.told, made.given], [[error], [0]]);
  });

  spills("ends a flush", async (made) => {
    made.push();
    const flush = watch(made.spiller.flush());
    await made.last.fails(new Error("no disk"));
    assertEquals([flush.ended, made.spiller.on], [true, false]);
  });
});
