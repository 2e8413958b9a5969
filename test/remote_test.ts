/**
 * A reader on another host: its receive queue cannot be looked up, so its advertised window has to
 * tell. The other host is a network namespace that this test makes and removes.
 */
import { spawn } from "node:child_process";
import { test, type TestContext } from "node:test";
import { assert, assertEquals } from "#std/assert";
import { compileC } from "../bench/readers/compile.ts";
import { kernelSource } from "../src/kernel/kernel.ts";
import { findLimit } from "../src/measure/limit.ts";
import { highestKeptUp, type LimitResult } from "../src/measure/limit_result.ts";
import { textMessage } from "../src/message/message.ts";
import { runtime } from "../src/kernel/runtime.ts";
import { serve } from "../src/relay/serve.ts";
import { assertFound, command, LIMIT } from "./limiting.ts";
import { type Host, makeHost, makeSlowLoopback, type Namespace } from "./namespace.ts";
import { skip } from "./skip.ts";
import { within } from "./within.ts";

const RATE = 20e6;

/** Measures a paced reader on another host; undefined: skipped, and said so. */
async function measure(
  t: TestContext,
  { paced, network, maxRate }: { paced: number; network?: number; maxRate: number },
): Promise<LimitResult | undefined> {
  if (kernelSource !== "sock_diag") {
    skip(t, `no windows to see: source is ${kernelSource}`);
    return undefined;
  }
  let program: string;
  let host: Host;
  try {
    program = await compileC(new URL("../bench/readers/paced.c", import.meta.url));
    host = makeHost(network);
  } catch (error) {
    skip(t, (error as Error).message.split("\n")[0]!);
    return undefined;
  }
  let reader: ReturnType<typeof spawn> | undefined;
  try {
    return await within(
      "the search",
      90_000,
      findLimit({
        message: textMessage("tick\n"),
        host: host.ours,
        precision: 0.05,
        timeSeconds: 20,
        maxRate,
        onEvent(event) {
          if (event.event !== "listening") return;
          const [ip, ...args] = host.run as [string, ...string[]];
          reader = spawn(ip, [...args, program, event.host, String(event.port), String(paced)], {
            stdio: "ignore",
          });
        },
      }),
    );
  } finally {
    const exited = new Promise((resolve) => reader!.once("exit", resolve));
    if (reader!.exitCode === null) {
      reader!.kill("SIGKILL");
      await within("the reader's end", 2000, exited);
    }
    host.remove();
  }
}

test(`a reader on another host, by its window, on ${runtime}`, async (t) => {
  const result = await measure(t, { paced: RATE, maxRate: 100e6 });
  if (result === undefined) return;
  assertEquals(result.queueSource, "window");
  assertFound(result, RATE, 0.05);
});

test(`a network that is slower than the reader is not the reader's limit, on ${runtime}`, async (t) => {
  const result = await measure(t, { paced: 10 * RATE, network: RATE, maxRate: Infinity });
  if (result === undefined) return;
  const { outcome, limit, trials, message } = result;
  assertEquals([outcome, limit], ["path-limited", null], message);
  assertNear(highestKeptUp(trials));
});

test(`of a reader that acknowledges, no more is unread than it may be, on ${runtime}`, async (t) => {
  let host: Host;
  try {
    host = makeHost();
  } catch (error) {
    return skip(t, (error as Error).message.split("\n")[0]!);
  }
  // The size that the client takes for granted.
  const [unread, size] = [16 << 10, 64];
  const server = await serve({
    ...{ host: host.ours, port: 0, ack: "reader", overflow: "block", unread, rate: Infinity },
    message: { numbered: true, size },
  });
  let most = 0;
  const looking = setInterval(() => {
    for (const { acceptedBytes, deliveredOffset } of server.figures!().readers) {
      most = Math.max(most, acceptedBytes - deliveredOffset);
    }
  }, 1);
  try {
    const to = `${host.ours}:${server.address.port}`;
    const client = command("client.ts", to, "--ack", "--verify", "--duration", "1s", "--json");
    const [ip, ...args] = [...host.run, ...client];
    const { status, stdout } = await execute(ip!, args);
    const { bytes, verified: { missing, damaged } } = JSON.parse(stdout);
    assertEquals([status, missing, damaged], [0, 0, 0], stdout);
    assert(bytes > 20 * unread, `${bytes} bytes`);
    assert(most > unread / 2 && most <= unread + size, `${most} bytes were unread`);
  } finally {
    clearInterval(looking);
    await within("the server's end", 5000, server.stop());
    host.remove();
  }
});

test(`nor is a slow loopback, where both ends can be seen, on ${runtime}`, async (t) => {
  if (kernelSource !== "sock_diag") {
    return skip(t, `both ends are needed: source is ${kernelSource}`);
  }
  let program: string;
  let slow: Namespace;
  try {
    program = await compileC(new URL("../bench/readers/paced.c", import.meta.url));
    slow = makeSlowLoopback(RATE);
  } catch (error) {
    return skip(t, (error as Error).message.split("\n")[0]!);
  }
  try {
    const reader = [program, "{host}", "{port}", String(10 * RATE)];
    const [ip, ...args] = [...slow.run, ...command(LIMIT, "--json", "--", ...reader)];
    const { status, stdout } = await execute(ip!, args);
    const { outcome, limit, trials, message } = JSON.parse(stdout) as LimitResult;
    assertEquals([status, outcome, limit], [1, "path-limited", null], message);
    assertNear(highestKeptUp(trials));
  } finally {
    slow.remove();
  }
});

/** What the network carries, less its headers; in a short trial a little more, from its bucket. */
function assertNear(rate: number): void {
  assert(rate > 0.7 * RATE && rate < 1.05 * RATE, `${rate}`);
}

function execute(program: string, args: string[]): Promise<{ status: number; stdout: string }> {
  const child = spawn(program, args, { stdio: ["ignore", "pipe", "ignore"] });
  let stdout = "";
  child.stdout.setEncoding("utf8").on("data", (text: string) => stdout += text);
  const ended = new Promise<{ status: number; stdout: string }>((resolve) =>
    child.once("close", (status) => resolve({ status: status ?? -1, stdout }))
  );
  return within("its end", 90_000, ended).finally(() => child.kill("SIGKILL"));
}
