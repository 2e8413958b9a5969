/**
 * A reader on another host: its receive queue cannot be looked up, so its advertised window has to
 * tell. The other host is a network namespace that this test makes and removes.
 */
import { execFileSync, spawn } from "node:child_process";
import process from "node:process";
import { test } from "node:test";
import { assertEquals } from "#std/assert";
import { compileC } from "../bench/readers/compile.ts";
import { kernelSource } from "../src/kernel/kernel.ts";
import { findLimit } from "../src/measure/limit.ts";
import { textMessage } from "../src/message/message.ts";
import { runtime } from "../src/kernel/runtime.ts";
import { assertFound } from "./limiting.ts";
import { skip } from "./skip.ts";
import { within } from "./within.ts";

const RATE = 20e6;

/** A namespace with a veth pair to here. Throws where that is not permitted, or there is no `ip`. */
function makeHost(): { ours: string; run: string[]; remove(): void } {
  // Names of interfaces are at most 15 characters long, addresses are of this process alone.
  const name = `sl${process.pid % 100_000}`;
  const net = `10.${77 + process.pid % 100}.${(process.pid >> 7) % 250}`;
  const ip = (line: string) => execFileSync("ip", line.split(" "), { stdio: "pipe" });
  ip(`netns add ${name}`);
  const remove = () => void ip(`netns del ${name}`);
  try {
    ip(`link add ${name}a type veth peer name ${name}b`);
    ip(`link set ${name}b netns ${name}`);
    ip(`addr add ${net}.1/24 dev ${name}a`);
    ip(`link set ${name}a up`);
    ip(`-n ${name} addr add ${net}.2/24 dev ${name}b`);
    ip(`-n ${name} link set ${name}b up`);
  } catch (error) {
    remove();
    throw error;
  }
  return { ours: `${net}.1`, run: ["ip", "netns", "exec", name], remove };
}

test(`a reader on another host, by its window, on ${runtime}`, async (t) => {
  if (kernelSource !== "sock_diag") return skip(t, `no windows to see: source is ${kernelSource}`);
  let program: string;
  let host: ReturnType<typeof makeHost>;
  try {
    program = await compileC(new URL("../bench/readers/paced.c", import.meta.url));
    host = makeHost();
  } catch (error) {
    const reason = (error as Error).message.split("\n")[0]!;
    return skip(t, reason);
  }
  let reader: ReturnType<typeof spawn> | undefined;
  try {
    const result = await within(
      "the search",
      60_000,
      findLimit({
        message: textMessage("tick\n"),
        host: host.ours,
        precision: 0.05,
        maxRate: 100e6,
        onEvent(event) {
          if (event.event !== "listening") return;
          const [ip, ...args] = host.run as [string, ...string[]];
          reader = spawn(ip, [...args, program, event.host, String(event.port), String(RATE)], {
            stdio: "ignore",
          });
        },
      }),
    );
    assertEquals(result.queueSource, "window");
    assertFound(result, RATE, 0.05);
  } finally {
    const exited = new Promise((resolve) => reader!.once("exit", resolve));
    if (reader!.exitCode === null) {
      reader!.kill("SIGKILL");
      await within("the reader's end", 2000, exited);
    }
    host.remove();
  }
});
