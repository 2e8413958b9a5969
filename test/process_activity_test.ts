/** What /proc tells of processes and threads, against what they say themselves. */
import { describe, test } from "node:test";
import { execFileSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import net from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { setTimeout as sleep } from "node:timers/promises";
import { assert, assertEquals, assertGreater, assertLess } from "#std/assert";
import { connectionState, kernelSource } from "../src/kernel/kernel.ts";
import { type Activity, ProcessActivity } from "../src/kernel/process_activity.ts";
import { procFiles } from "../src/kernel/proc_files.ts";
import { runtime } from "../src/kernel/runtime.ts";
import { Program } from "./process.ts";
import { skip } from "./skip.ts";
import { until, within } from "./within.ts";

/**
 * Threads that compute for a tenth of a second each, one after the other, and a child that computes for as
 * long; each stays until a file with its number is there. Says how much CPU time it all took, in ns.
 */
const SCRIPT = `
import os, sys, threading, time
def wait_for(name):
    while not os.path.exists(os.path.join(sys.argv[1], str(name))): time.sleep(0.005)
def burn(number):
    end = time.thread_time() + 0.1
    while time.thread_time() < end: pass
    wait_for(number)
print("ready", flush=True)
wait_for("start")
before = time.process_time()
for i in range(4):
    thread = threading.Thread(target=burn, args=[i])
    thread.start()
    thread.join()
own = time.process_time() - before
child = os.fork()
if child == 0:
    burn(4)
    os._exit(0)
os.waitpid(child, 0)
print("burnt", int((own + 0.1) * 1e9), flush=True)
wait_for("end")
`;

function hasPython(): boolean {
  try {
    execFileSync("python3", ["--version"], { stdio: "ignore" });
    return true;
  } catch {
    return false;
  }
}

describe(`activity of processes, ${runtime}`, () => {
  test("threads and children that have ended still count, and sums never fall", async (t) => {
    if (!hasPython()) return skip(t, "no python3");
    const folder = mkdtempSync(join(tmpdir(), "speedlimit-activity-"));
    t.after(() => rmSync(folder, { recursive: true, force: true }));
    const go = (name: string | number) => writeFileSync(join(folder, String(name)), "");
    const program = new Program("setsid", ["python3", "-c", SCRIPT, folder], {});
    await within("its start", 20_000, program.saw(/ready/));
    const activity = ProcessActivity.find({ group: program.pid });
    if (activity === undefined) {
      program.kill("SIGKILL");
      await program.ended;
      return skip(t, "no figures of processes here");
    }
    const seen: Activity[] = [activity.read()];
    const earlier = activity.threads.length;
    go("start");
    for (let number = 0; number < 5; number++) {
      await until(`thread ${number}`, 20_000, () => {
        seen.push(activity.read());
        return activity.threads.length > earlier + number &&
          activity.threads.at(-1)!.cpuNs > 0.99e8;
      });
      go(number);
    }
    await within("all of them", 20_000, program.saw(/burnt/));
    seen.push(activity.read());
    go("end");
    await within("its end", 20_000, program.ended);
    await until("no threads", 20_000, () => {
      seen.push(activity.read());
      return activity.threads.every(({ ended }) => ended);
    });
    activity.close();
    const burnt = Number(/burnt (\d+)/.exec(program.stdout)![1]);
    seen.slice(1).forEach((now, i) => {
      const before = seen[i]!;
      for (const key of ["cpuNs", "waitNs", "switches"] as const) {
        assert(now[key] >= before[key], `${key}: ${before[key]}, then ${now[key]}`);
      }
    });
    const { cpuNs } = seen.at(-1)!;
    assertGreater(cpuNs, 0.8 * burnt, "of its threads and its child");
    assertLess(cpuNs, burnt + 1e9);
    assertGreater(Math.max(...seen.map(({ processes }) => processes)), 1);
    assertGreater(Math.max(...seen.map(({ threads }) => threads)), 1);
    // Four in turn, and the one of the child.
    assertEquals(activity.threads.length, earlier + 5);
  });

  test("what was done before is not counted, and memory is", async (t) => {
    const program = new Program(process.execPath, ["--version"], {});
    await within("its end", 10_000, program.ended);
    const sleeper = new Program("sleep", ["60"], {});
    const activity = ProcessActivity.find({ group: sleeper.pid });
    try {
      if (activity === undefined) return skip(t, "no figures of processes here");
      await sleep(50);
      const { processes, threads } = activity.read();
      assertEquals([processes, threads], [1, 1]);
      assertGreater(activity.residentBytes(), 100_000);
      assertLess(activity.residentBytes(), 1e8);
      assertEquals(ProcessActivity.find({ group: program.pid }), undefined, "it has ended");
    } finally {
      activity?.close();
      sleeper.kill("SIGKILL");
      await sleeper.ended;
    }
  });

  test("the inode of a socket is that of a descriptor of this process", async (t) => {
    if (kernelSource === "none") return skip(t, "no kernel figures");
    const server = net.createServer();
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    const { port } = server.address() as net.AddressInfo;
    const socket = net.connect(port, "127.0.0.1");
    const accepted = await new Promise<net.Socket>((resolve) => server.once("connection", resolve));
    const end = (host: string, port: number) => ({ host, port });
    const { near, far } = connectionState(
      end(accepted.localAddress!, accepted.localPort!),
      end(accepted.remoteAddress!, accepted.remotePort!),
    );
    const links = procFiles.list("/proc/self/fd").map((fd) =>
      procFiles.link(`/proc/self/fd/${fd}`)
    );
    assert(links.includes(`socket:[${near!.inode}]`), `${near!.inode}: ${links}`);
    assert(links.includes(`socket:[${far!.inode}]`), `${far!.inode}: ${links}`);
    socket.destroy();
    accepted.destroy();
    server.close();
  });

  test("files of /proc that are not there are absent", () => {
    assertEquals(procFiles.open("/proc/nothing"), undefined);
    assertEquals(procFiles.read("/proc/nothing"), undefined);
    assertEquals(procFiles.link("/proc/nothing"), undefined);
    assertEquals(procFiles.list("/proc/nothing"), []);
  });
});
