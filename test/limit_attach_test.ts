/** bin/limit.ts --attach, SIGINT in mid-search, and what findLimit() tells meanwhile. */
import { describe, test } from "node:test";
import { readFileSync } from "node:fs";
import {
  assertEquals,
  assertGreaterOrEqual,
  assertLess,
  assertMatch,
  assertStringIncludes,
} from "#std/assert";
import { findLimit } from "../src/measure/limit.ts";
import type { LimitEvent } from "../src/measure/limit_options.ts";
import {
  assertFound,
  attaching,
  fill,
  leavingNobody,
  LIMIT,
  MESSAGE,
  misbehaving,
  paced,
  parse,
} from "./limiting.ts";
import { Program, start } from "./process.ts";
import { until, within } from "./within.ts";

/** Starts a reader in a session of its own, as from another terminal, and waits until it is connected. */
async function startReader(words: readonly string[], port: number): Promise<Program> {
  const connected = connections(port);
  const filled = words.map((word) => fill(word, port));
  const reader = new Program("setsid", ["--wait", ...filled], { timeoutMs: 60_000 });
  await until("a connected reader", 5000, () => connections(port) > connected);
  return reader;
}

/** How many connections of a listener on this port are established (proc(5), tcp: state 01). */
function connections(port: number): number {
  const local = `:${port.toString(16).toUpperCase().padStart(4, "0")}`;
  return readFileSync("/proc/net/tcp", "utf8").split("\n").filter((line) => {
    const [, at = "", , state] = line.trim().split(/\s+/);
    return at.endsWith(local) && state === "01";
  }).length;
}

describe("--attach", () => {
  test("a reader that comes by itself", async () => {
    await attaching(["--max-rate", "2MB/s"], async (program, port) => {
      const reader = start(["client.ts", `127.0.0.1:${port}`, "--json"]);
      const ran = await within("the outcome", 30_000, program.ended);
      const { outcome, reader: name } = parse(ran);
      assertEquals([ran.status, outcome, name], [0, "generator-limited", "attached"], ran.stderr);
      const left = await within("the reader's end", 5000, reader.ended);
      assertEquals([left.status, JSON.parse(left.stdout).ended], [0, "eof"]);
    });
  });

  test("a reader that reconnects whenever it is closed", async () => {
    await leavingNobody((pids) =>
      attaching(["--max-rate", "2MB/s"], async (program, port) => {
        const behaviour = ["127.0.0.1", String(port), "reconnects after each close", pids];
        const reader = start(["test/readers/misbehaving.ts", ...behaviour]);
        try {
          const ran = await within("the outcome", 40_000, program.ended);
          const { outcome, trials } = parse(ran);
          assertEquals([ran.status, outcome], [0, "generator-limited"], ran.stderr);
          const ended = trials.filter((trial) => trial.ended !== undefined);
          assertGreaterOrEqual(ended.length, 1);
          assertMatch(ran.stderr, /replacing the reader: its connection ended/);
        } finally {
          reader.kill("SIGKILL");
          await within("the reader's end", 5000, reader.ended);
        }
      })
    );
  });

  test("two readers, of which the second is the slow one", async (t) => {
    const rate = 3e6;
    const [fast, slow] = [await paced(t, 20 * rate), await paced(t, rate)];
    if (fast === undefined || slow === undefined) return;
    await attaching(["--readers", "2", "--precision", "10%"], async (program, port) => {
      const readers = [await startReader(fast, port), await startReader(slow, port)];
      const ran = await within("the outcome", 50_000, program.ended);
      const result = parse(ran);
      assertFound(result, rate, 0.1);
      assertEquals([result.readers, result.firstBehind], [2, 1], ran.stderr);
      assertEquals(ran.status, result.outcome === "found" ? 0 : 1, ran.stderr);
      await within("both ends", 5000, Promise.all(readers.map(({ ended }) => ended)));
    });
  });
});

describe("SIGINT", () => {
  test("in mid-search: 130, what is known so far, and no reader left", async () => {
    await leavingNobody(async (pids) => {
      const reader = misbehaving("reads well", pids);
      const program = start([LIMIT, "--json", "--", ...reader], { timeoutMs: 40_000 });
      await within("two trials", 20_000, program.saw(/ramp[^]*\nramp/));
      const before = performance.now();
      program.kill("SIGINT");
      const ran = await within("its end", 5000, program.ended);
      assertLess(performance.now() - before, 3000);
      const { interrupted, limit, trials, message } = parse(ran);
      assertEquals([ran.status, interrupted, limit], [130, true, null]);
      assertGreaterOrEqual(trials.length, 2);
      assertEquals(message, "interrupted before the limit was found");
    });
  });

  test("in mid-search, for people: the table says above what it is", async () => {
    await leavingNobody(async (pids) => {
      const reader = misbehaving("reads well", pids);
      const program = start([LIMIT, "--size", "13", "--", ...reader], { timeoutMs: 40_000 });
      await within("a trial", 20_000, program.saw(/ramp +1\.00 MB/));
      program.kill("SIGINT");
      const { status, stdout } = await within("its end", 5000, program.ended);
      assertEquals(status, 130);
      assertMatch(stdout, /above [\d.]+ MB\/s\?/);
      assertStringIncludes(stdout, "interrupted before the limit was found");
    });
  });

  test("before the reader has connected", async () => {
    await leavingNobody(async (pids) => {
      const reader = misbehaving("never connects", pids);
      const program = start([LIMIT, "--json", "--", ...reader], { timeoutMs: 40_000 });
      await until("the reader", 10_000, () => {
        try {
          return readFileSync(pids, "utf8") !== "";
        } catch {
          return false;
        }
      });
      program.kill("SIGINT");
      const ran = await within("its end", 5000, program.ended);
      assertEquals([ran.status, parse(ran).interrupted], [130, true]);
    });
  });

  test("while it waits for readers", async () => {
    await attaching([], async (program) => {
      program.kill("SIGINT");
      const ran = await within("its end", 5000, program.ended);
      assertEquals([ran.status, parse(ran).interrupted], [130, true]);
    });
  });
});

describe("findLimit()", () => {
  test("tells what happens, in order", async () => {
    const events: LimitEvent[] = [];
    const result = await leavingNobody((pids) =>
      within(
        "the outcome",
        20_000,
        findLimit({
          command: misbehaving("reads well", pids),
          name: "well",
          message: MESSAGE,
          maxRate: 1e6,
          onEvent: (event) => events.push(event),
        }),
      )
    );
    assertEquals([result.outcome, result.reader], ["generator-limited", "well"]);
    const names = events.map(({ event }) => event);
    assertEquals(names.slice(0, 4), ["listening", "connected", "trial-begins", "trial"]);
    const trials = events.flatMap((event) => event.event === "trial" ? [event.trial] : []);
    assertEquals(trials, result.trials);
    // A reader whose runtime is busy after a trial is offered the same rate once more, to be certain.
    const ramp = trials.filter(({ purpose }) => purpose === "ramp");
    assertEquals(ramp.map(({ offered }) => offered).slice(0, 2), [500_000, 1_000_000]);
  });

  test("its signal ends it early", async () => {
    const controller = new AbortController();
    const result = await leavingNobody((pids) =>
      within(
        "the outcome",
        20_000,
        findLimit({
          command: misbehaving("reads well", pids),
          message: MESSAGE,
          signal: controller.signal,
          onEvent: ({ event }) => {
            if (event === "trial") controller.abort();
          },
        }),
      )
    );
    assertEquals([result.interrupted, result.trials.length], [true, 1]);
  });
});
