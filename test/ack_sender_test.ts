/** What a source acknowledges to an upstream server, and when: over a made-up connection and clock. */
import { describe, test } from "node:test";
import { assertEquals } from "#std/assert";
import type { Connection } from "../src/net/net.ts";
import { AckSender } from "../src/source/ack_sender.ts";

/** A connection of which the test says how many bytes it takes. */
class MadeConnection {
  /** What it was offered that it has not answered yet. */
  offered: string | undefined;
  /** What it has taken. */
  taken = "";
  writes = 0;
  #answer: ((taken: number) => void) | undefined;

  write(bytes: Uint8Array): Promise<number> {
    this.writes++;
    this.offered = new TextDecoder().decode(bytes);
    return new Promise((resolve) => this.#answer = resolve);
  }

  /** Takes so many bytes; default: all. */
  async take(bytes: number = this.offered!.length): Promise<void> {
    this.taken += this.offered!.slice(0, bytes);
    this.offered = undefined;
    this.#answer!(bytes);
    await turns();
  }
}

/** Lets all go on that only waits for promises. */
async function turns(): Promise<void> {
  for (let i = 0; i < 10; i++) await Promise.resolve();
}

interface Timers {
  /** How long those last that have begun and not ended; ms. */
  readonly pending: number[];
  /** Ends the only one. */
  fire(): void;
}

/** Runs a test with timers that end when it says so; it must wait for nothing but promises. */
async function withTimers(run: (timers: Timers) => Promise<void>): Promise<void> {
  const { setTimeout, clearTimeout } = globalThis;
  const pending = new Map<number, { delayMs: number; ended: () => void }>();
  let last = 0;
  const made = {
    setTimeout: (ended: () => void, delayMs: number) => {
      pending.set(++last, { delayMs, ended });
      return last;
    },
    clearTimeout: (id: number) => void pending.delete(id),
  };
  Object.assign(globalThis, made);
  try {
    await run({
      get pending() {
        return [...pending.values()].map(({ delayMs }) => delayMs);
      },
      fire() {
        const [[id, timer] = []] = pending;
        pending.delete(id!);
        timer!.ended();
      },
    });
  } finally {
    Object.assign(globalThis, { setTimeout, clearTimeout });
  }
}

function senderAt(offset: number): { sender: AckSender; connection: MadeConnection } {
  const connection = new MadeConnection();
  return {
    sender: new AckSender(connection as Partial<Connection> as Connection, offset),
    connection,
  };
}

describe("AckSender", () => {
  test("acknowledges what is safe, but no more than was received", async () => {
    await withTimers(async (timers) => {
      const { sender, connection } = senderAt(100);
      // Where the server resumes is acknowledged already.
      sender.acknowledge(99);
      sender.acknowledge(100);
      // From an earlier connection: more is safe than this one has received.
      sender.acknowledge(500);
      assertEquals(connection.writes, 0);
      sender.received(7);
      assertEquals(connection.offered, "ack 107\n");
      await connection.take();
      sender.received(300);
      sender.received(1000);
      timers.fire();
      assertEquals(connection.offered, "ack 500\n");
      await connection.take();
      timers.fire();
      assertEquals(connection.writes, 2);
    });
  });

  test("acknowledges nothing by itself, nor twice, nor less than before", async () => {
    await withTimers(async (timers) => {
      const { sender, connection } = senderAt(0);
      sender.received(10);
      assertEquals(connection.writes, 0);
      sender.acknowledge(5);
      assertEquals(connection.offered, "ack 5\n");
      await connection.take();
      timers.fire();
      assertEquals(timers.pending, []);
      for (const position of [5, 4]) sender.acknowledge(position);
      sender.received(10);
      assertEquals(connection.writes, 1);
      sender.acknowledge(6);
      assertEquals(connection.offered, "ack 6\n");
    });
  });

  test("sends one at a time, 10 ms apart, and then the latest", async () => {
    await withTimers(async (timers) => {
      const { sender, connection } = senderAt(0);
      sender.received(1000);
      sender.acknowledge(1);
      sender.acknowledge(2);
      assertEquals([connection.writes, timers.pending], [1, []]);
      await connection.take();
      assertEquals(timers.pending, [10]);
      sender.acknowledge(3);
      sender.acknowledge(4);
      assertEquals(connection.writes, 1);
      timers.fire();
      assertEquals([connection.offered, connection.writes], ["ack 4\n", 2]);
      await connection.take();
      timers.fire();
      assertEquals(connection.writes, 2);
      // After a pause: at once.
      sender.acknowledge(1000);
      assertEquals(connection.offered, "ack 1000\n");
    });
  });

  test("offers again what was not taken", async () => {
    await withTimers(async (timers) => {
      const { sender, connection } = senderAt(0);
      sender.received(1000);
      sender.acknowledge(789);
      for (const [taken, rest] of [[1, "ck 789\n"], [4, "89\n"], [2, "\n"]] as const) {
        await connection.take(taken);
        assertEquals([connection.offered, timers.pending], [rest, []]);
      }
      sender.acknowledge(800);
      await connection.take(1);
      assertEquals([connection.taken, connection.offered], ["ack 789\n", undefined]);
      assertEquals(timers.pending, [10]);
    });
  });

  test("sends no more once the connection has ended", async () => {
    await withTimers(async (timers) => {
      const { sender, connection } = senderAt(0);
      sender.received(1000);
      sender.acknowledge(10);
      await connection.take(0);
      sender.acknowledge(20);
      assertEquals([connection.writes, timers.pending], [1, []]);
    });
  });

  test("sends no more once it is closed: not in the middle, nor later", async () => {
    await withTimers(async (timers) => {
      for (const taken of [3, "ack 10\n".length]) {
        const { sender, connection } = senderAt(0);
        sender.received(1000);
        sender.acknowledge(10);
        sender.close();
        await connection.take(taken);
        sender.acknowledge(20);
        assertEquals([connection.writes, timers.pending], [1, []]);
      }
      const { sender, connection } = senderAt(0);
      sender.received(1000);
      sender.close();
      sender.acknowledge(10);
      assertEquals(connection.writes, 0);
    });
  });

  test("closed between two: leaves no timer behind", async () => {
    await withTimers(async (timers) => {
      const { sender, connection } = senderAt(0);
      sender.received(1000);
      sender.acknowledge(10);
      await connection.take();
      assertEquals(timers.pending, [10]);
      sender.close();
      assertEquals(timers.pending, []);
      sender.acknowledge(20);
      assertEquals(connection.writes, 1);
    });
  });
});
