/** What is left of the readers that `limit` and findLimit() started, however they end: nothing. */
import { describe, test, type TestContext } from "node:test";
import { type ChildProcess, spawn } from "node:child_process";
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import process from "node:process";
import { setTimeout as sleep } from "node:timers/promises";
import { assert, assertEquals, assertGreaterOrEqual, assertLess, assertMatch } from "#std/assert";
import { ProcessSession } from "../src/kernel/process_session.ts";
import { runtime } from "../src/kernel/runtime.ts";
import { ReaderPool } from "../src/measure/reader_pool.ts";
import { ReaderProcess } from "../src/measure/reader_process.ts";
import { leavingNobody, LIMIT, lives, MESSAGE, misbehaving, parse } from "./limiting.ts";
import { run, type RunResult, start } from "./process.ts";
import { skip } from "./skip.ts";
import { until, within } from "./within.ts";

/** Longer than any deadline here: only a SIGKILL of ours can have ended a stubborn reader sooner. */
const NEVER = ["--stop-timeout", "300s"];

/** `limit` with a reader that ignores SIGTERM, once its first trial is over. */
async function measuring(
  options: readonly string[],
  use: (program: ReturnType<typeof start>) => Promise<RunResult>,
  under: readonly string[] = [],
): Promise<RunResult> {
  return await leavingNobody(async (pids) => {
    const reader = misbehaving("reads, and ignores SIGTERM", pids);
    const program = start([LIMIT, "--json", ...options, "--", ...reader], { under });
    await within("a trial", 20_000, program.saw(/ramp/));
    return await use(program);
  });
}

describe("a reader that ignores SIGTERM is ended", () => {
  test("by two quick SIGINT: 130", async () => {
    const ran = await measuring(NEVER, async (program) => {
      program.kill("SIGINT");
      await sleep(100);
      program.kill("SIGINT");
      return await within("its end", 5000, program.ended);
    });
    assertEquals(ran.status, 130, ran.stderr);
  });

  for (const signal of ["SIGHUP", "SIGQUIT"] as const) {
    test(`by ${signal}, which ends limit at once`, async () => {
      const ran = await measuring(NEVER, (program) => {
        program.kill(signal);
        return within("its end", 5000, program.ended);
      });
      assertEquals([ran.status, ran.signal], [undefined, signal], ran.stderr);
    });
  }

  for (const signal of ["SIGINT", "SIGTERM"] as const) {
    test(`by one ${signal}, after --stop-timeout: 130`, async () => {
      const ran = await measuring(["--stop-timeout", "200ms"], (program) => {
        program.kill(signal);
        return within("its end", 5000, program.ended);
      });
      assertEquals([ran.status, parse(ran).interrupted], [130, true], ran.stderr);
    });
  }

  test("not by a SIGHUP that limit was started to ignore", async (t) => {
    if (runtime !== "bun") return skip(t, `${runtime} itself stops ignoring it`);
    const nohup = ["sh", "-c", `trap "" HUP; exec "$@"`, "sh"];
    const ran = await measuring(["--max-rate", "1MB/s", "--stop-timeout", "0"], (program) => {
      program.kill("SIGHUP");
      return within("its end", 20_000, program.ended);
    }, nohup);
    assertEquals([ran.status, parse(ran).outcome], [0, "generator-limited"], ran.stderr);
  });

  const ways: Record<string, Partial<RunResult>> = {
    "exits": { status: 7 },
    "throws": { status: 1 },
    "rejects": { status: 1 },
    ...(runtime === "deno" ? { "exits as Deno does": { status: 7 } } : {}),
    "SIGINT": { signal: "SIGINT" },
    "SIGTERM": { signal: "SIGTERM" },
    "SIGHUP": { signal: "SIGHUP" },
  };
  for (const [how, expected] of Object.entries(ways)) {
    test(`when a program that uses findLimit() ends: ${how}`, async () => {
      const { status, signal, stderr } = await leavingNobody((pids) =>
        within(
          "its end",
          20_000,
          run([
            "test/fixtures/limit_program.ts",
            how,
            ...misbehaving("reads, and ignores SIGTERM", pids),
          ]),
        )
      );
      assertEquals([status, signal], [expected.status, expected.signal], stderr);
    });
  }

  test("when there are no descriptors for all of 40 readers", async () => {
    const limited = ["sh", "-c", `ulimit -n 64; exec "$@"`, "sh"];
    const ran = await leavingNobody((pids) => {
      const reader = ["sh", "-c", `trap "" TERM; echo $$ >> ${pids}; exec sleep 300`];
      const options = ["--readers", "40", "--stop-timeout", "100ms"];
      return run([LIMIT, "--json", ...options, "--", ...reader], { under: limited });
    });
    const { outcome, message } = parse(ran);
    assertEquals([ran.status, outcome], [1, "reader-failed"], ran.stderr);
    assertMatch(
      message,
      /^cannot start the reader sh \(\d+ of 40\): this process has too many open files/,
    );
  });
});

describe("stopping a reader", () => {
  /** Milliseconds that it takes to end the pool's readers. */
  async function end(pool: ReaderPool): Promise<number> {
    const startMs = performance.now();
    await within("the end of the readers", 10_000, pool.end());
    return performance.now() - startMs;
  }

  async function withPool<T>(
    behaviour: string,
    use: (pool: ReaderPool, pids: string) => Promise<T>,
  ): Promise<T> {
    return await leavingNobody(async (pids) => {
      const pool = new ReaderPool({ command: misbehaving(behaviour, pids), message: MESSAGE });
      await pool.open();
      try {
        await within("the reader", 20_000, pool.replace());
        return await use(pool, pids);
      } finally {
        await within("the end of the pool", 10_000, pool.close());
      }
    });
  }

  test("it has 3 s to end in order", async () => {
    await withPool("reads, and needs a second to end", async (pool, pids) => {
      await end(pool);
      assertMatch(readFileSync(pids, "utf8"), /ended in order/);
    });
  });

  test("the readers after one that ignored SIGTERM have 0.3 s", async () => {
    await withPool("reads, and ignores SIGTERM", async (pool) => {
      assertGreaterOrEqual(await end(pool), 2999);
      await within("the next reader", 20_000, pool.replace());
      assertLess(await end(pool), 2999);
    });
  });

  test("one that is stopped ends by SIGTERM all the same", async () => {
    await leavingNobody(async (pids) => {
      const words = [
        "sh",
        "-c",
        `trap "exit 0" TERM; echo $$ >> ${pids}; while :; do sleep 0.01; done`,
      ];
      const reader = new ReaderProcess(words);
      const pid = await pidIn(pids);
      process.kill(pid, "SIGSTOP");
      await until(
        "it is stopped",
        5000,
        () => / T /.test(readFileSync(`/proc/${pid}/stat`, "latin1")),
      );
      assertEquals(await within("its end", 20_000, reader.kill(60_000)), true);
      assertEquals(reader.exit, { code: 0, signal: null });
    });
  });

  test("with it end those that it started, also in process groups of their own", async () => {
    for (const first of ["wait", "exit 0"]) {
      await leavingNobody(async (pids) => {
        // With job control each command in the background has a process group of its own.
        // The first notes its pid once it ignores SIGTERM.
        const stubborn = `sh -c 'trap "" TERM; echo $$ >> ${pids}; exec sleep 300'`;
        const other = `sh -c 'echo $$ >> ${pids}; exec sleep 300'`;
        const script = `set -m; ${stubborn} & ${other} & ${first}`;
        const reader = new ReaderProcess(["sh", "-c", script]);
        await until("both", 5000, () => lines(pids).length === 2);
        if (first !== "wait") await within("its end", 5000, reader.exited);
        assertEquals(await within("its end", 20_000, reader.kill(200)), false);
        assertEquals(reader.exit?.code ?? null, first === "wait" ? null : 0);
      });
    }
  });

  test("a word with a NUL in it cannot be started", async () => {
    const reader = new ReaderProcess(["echo", "a\0b"]);
    await within("its end", 5000, reader.exited);
    assert(reader.startError !== undefined && !reader.started);
    assertEquals(await within("its end", 5000, reader.kill(1000)), true);
  });
});

/** Gives the number to a process of ours, which the session must then leave alone. */
async function assertNotSignalled(t: TestContext, session: ProcessSession, pid: number) {
  const stranger = await spawnWithPid(pid);
  if (stranger === undefined) return skip(t, "a pid cannot be chosen here");
  try {
    session.signal("SIGKILL");
    assertEquals(session.runs, false);
    await assertUnharmed(stranger);
  } finally {
    stranger.end();
  }
}

describe("a number that another process has got meanwhile", () => {
  test("is not signalled", async (t) => {
    const leader = spawn("true", { detached: true, stdio: "ignore" });
    const session = new ProcessSession(leader.pid!);
    await within("its end", 5000, exitOf(leader));
    session.leaderReaped();
    assertEquals(session.runs, false);
    await assertNotSignalled(t, session, leader.pid!);
  });

  test("is not signalled, though others of the session lived on for a while", async (t) => {
    const leader = spawn("sh", ["-c", "sleep 300 & echo $!"], {
      detached: true,
      stdio: ["ignore", "pipe", "ignore"],
    });
    const session = new ProcessSession(leader.pid!);
    let pid = 0;
    leader.stdout!.on("data", (text) => pid = Number(text));
    await within("its end", 5000, exitOf(leader));
    session.leaderReaped();
    await until("its child", 5000, () => pid > 0);
    assertEquals(session.runs, true);
    process.kill(pid, "SIGKILL");
    await until("the end of its child", 5000, () => !lives(pid));
    // It keeps the number until it is reaped, which some machines do late.
    for (let i = 0; i < 500 && existsSync(`/proc/${pid}`); i++) await sleep(20);
    await assertNotSignalled(t, session, leader.pid!);
  });
});

const exitOf = (child: ChildProcess) => new Promise((resolve) => child.once("exit", resolve));

const lines = (file: string): string[] => {
  try {
    return readFileSync(file, "utf8").trim().split("\n");
  } catch {
    return [];
  }
};

async function pidIn(file: string): Promise<number> {
  // The file is there before the number is in it; and signals to 0 would go to ourselves.
  await until("its pid", 5000, () => Number(lines(file)[0]) > 0);
  return Number(lines(file)[0]);
}

/** What is sent later arrives later: a SIGKILL would have ended them by then. */
async function assertUnharmed(stranger: Stranger): Promise<void> {
  assert(lives(stranger.child), "its child was ended");
  process.kill(stranger.leader.pid!, "SIGTERM");
  assertEquals(await within("its end", 5000, exitOf(stranger.leader)), null);
  assertEquals(stranger.leader.signalCode, "SIGTERM");
}

interface Stranger {
  leader: ChildProcess;
  child: number;
  end(): void;
}

const LAST_PID = "/proc/sys/kernel/ns_last_pid";

/**
 * A process that leads a session, with that number; undefined where only the kernel chooses. The kernel then
 * goes on from where it was: numbers that have just become free are remembered by other tests, too.
 */
async function spawnWithPid(pid: number): Promise<Stranger | undefined> {
  for (let i = 0; i < 50; i++) {
    let last: string;
    try {
      last = readFileSync(LAST_PID, "latin1").trim();
      writeFileSync(LAST_PID, String(pid - 1));
    } catch {
      return undefined;
    }
    const leader = spawn("sh", ["-c", "sleep 300 & echo $!; exec sleep 300"], {
      detached: true,
      stdio: ["ignore", "pipe", "ignore"],
    });
    writeFileSync(LAST_PID, last);
    const end = () => void process.kill(-leader.pid!, "SIGKILL");
    if (leader.pid === pid) {
      let child = 0;
      leader.stdout!.on("data", (text) => child = Number(text));
      await until("its child", 5000, () => child > 0);
      return { leader, child, end };
    }
    end();
    await within("its end", 5000, exitOf(leader));
  }
  return undefined;
}
