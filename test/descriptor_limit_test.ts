/** A server with few descriptors (`ulimit -n`): more readers connect than it can have. */
import { readFileSync } from "node:fs";
import type { Socket } from "node:net";
import { describe, test } from "node:test";
import process from "node:process";
import { setTimeout as sleep } from "node:timers/promises";
import { assert, assertEquals, assertGreater, assertGreaterOrEqual, assertLess } from "#std/assert";
import { descriptorLimit } from "../src/kernel/descriptor_limit.ts";
import { runtime } from "../src/kernel/runtime.ts";
import type { ServeEvent } from "../src/relay/serve_event.ts";
import { type Program, type RunOptions, SERVE_PERMISSIONS } from "./process.ts";
import { connect, eventsOf, json, serving } from "./serving.ts";
import { skip } from "./skip.ts";
import { until, within } from "./within.ts";

const LIMIT = 100;
const under = ["sh", "-c", `ulimit -n ${LIMIT}; exec "$@"`, "sh"];

/** Seconds of processor time that a process has had. */
function processorTime({ pid }: Program): number {
  const fields = readFileSync(`/proc/${pid}/stat`, "latin1").replace(/^.*\) /s, "").split(" ");
  return (Number(fields[11]) + Number(fields[12])) / 100;
}

const named = <Name extends ServeEvent["event"]>(program: Program, name: Name) =>
  eventsOf(program.stdout).filter((event) => event.event === name) as (ServeEvent & {
    event: Name;
  })[];

async function atTheLimit(options: RunOptions): Promise<void> {
  const sockets: Socket[] = [];
  const connectMany = async (count: number) => {
    for (let i = 0; i < count; i++) sockets.push(await connect(port));
  };
  let port = 0;
  const args = [...json, "--rate", "1/s"];
  await serving(args, async (program, its) => {
    port = its;
    await connectMany(LIMIT + 50);
    await within("the event", 5000, program.saw(/"event":"accept-failed"/));
    const accepted = () => named(program, "reader").length;
    assertGreater(accepted(), 20);
    assertLess(accepted(), LIMIT);
    // It does not spin, and keeps those that it has.
    const before = processorTime(program);
    await sleep(2000);
    assertLess(processorTime(program) - before, 1);
    assertEquals(named(program, "closed"), []);
    const failures = named(program, "accept-failed");
    assertEquals(failures.map(({ error }) => error), failures.map(() => "EMFILE"));
    for (const [i, { time }] of failures.entries()) {
      if (i > 0) assertGreaterOrEqual(time - failures[i - 1]!.time, 0.99);
    }
    // Once there are descriptors again, it accepts again.
    const had = accepted();
    for (const socket of sockets.splice(0)) socket.destroy();
    await until("their ends", 5000, () => named(program, "closed").length >= had);
    await connectMany(10);
    await until("ten more", 5000, () => accepted() >= had + 10);
    for (const socket of sockets) socket.destroy();
  }, { under, ...options });
}

describe(`at the limit of descriptors, on ${runtime}`, () => {
  test("the server closes what is too much, says so once a second, and goes on", async (t) => {
    if (process.platform !== "linux") return skip(t, "ulimit and /proc are those of Linux");
    await atTheLimit({});
  });

  test("also with the permissions of its task", async (t) => {
    if (runtime !== "deno") return skip(t, "only Deno has permissions");
    await atTheLimit({ permissions: SERVE_PERMISSIONS });
  });

  test("also where it does not know the limit: then they wait", async (t) => {
    if (runtime !== "deno") return skip(t, "elsewhere it can always be read");
    await atTheLimit({ permissions: ["--allow-net", "--allow-read"] });
  });

  test("this process has a limit", () => {
    const limit = descriptorLimit();
    assert(limit === undefined || limit > 20, `${limit}`);
  });
});
