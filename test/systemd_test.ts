/** What the server tells systemd, received by a real unix datagram socket, as systemd has one. */
import { Buffer } from "node:buffer";
import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import { existsSync, mkdirSync, readFileSync, symlinkSync, writeFileSync } from "node:fs";
import { connect as connectSocket } from "node:net";
import { delimiter, join } from "node:path";
import process from "node:process";
import { describe, test } from "node:test";
import { assertEquals, assertGreater, assertLess, assertMatch } from "#std/assert";
import { runtime } from "../src/kernel/runtime.ts";
import { type Program, ROOT, type RunOptions, SERVE_PERMISSIONS, start } from "./process.ts";
import { withFolder } from "./serving.ts";
import { skip } from "./skip.ts";
import { until, within } from "./within.ts";

/** Binds the socket of its argument, and prints each datagram as a line: seconds, then its text in hex. */
const RECEIVER = `
import socket, sys, time
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
name = sys.argv[1]
s.bind("\\0" + name[1:] if name.startswith("@") else name)
print("bound", flush=True)
while True:
    data = s.recv(65536)
    if data:
        print(time.monotonic(), data.hex(), flush=True)
`;

interface Told {
  atSeconds: number;
  text: string;
}

interface Receiver {
  told: readonly Told[];
  /** Waits for the first message with this line. */
  saw(line: string): Promise<Told>;
}

const hasPython = spawnSync("python3", ["--version"]).status === 0;

async function receiving(
  socket: string,
  use: (receiver: Receiver) => Promise<void>,
): Promise<void> {
  const child: ChildProcess = spawn("python3", ["-c", RECEIVER, socket], {
    stdio: ["ignore", "pipe", "inherit"],
  });
  const exited = new Promise((done) => child.once("exit", done));
  let output = "";
  const told: Told[] = [];
  child.stdout!.setEncoding("utf8").on("data", (text: string) => {
    output += text;
    const lines = output.split("\n");
    output = lines.pop()!;
    for (const line of lines) {
      const [seconds, hex] = line.split(" ");
      if (hex === undefined) continue;
      told.push({ atSeconds: Number(seconds), text: Buffer.from(hex, "hex").toString() });
    }
  });
  try {
    await within("its socket", 5000, new Promise((done) => child.stdout!.once("data", done)));
    await use({
      told,
      async saw(line) {
        const found = () => told.find(({ text }) => text.split("\n").includes(line));
        await until(line, 10_000, () => found() !== undefined);
        return found()!;
      },
    });
  } finally {
    child.kill("SIGKILL");
    await within("the receiver's end", 5000, exited);
  }
}

async function serving(
  options: RunOptions,
  use: (program: Program) => Promise<void>,
): Promise<void> {
  const args = ["server.ts", "--port", "0", "--rate", "1k/s", "--replies", "drain"];
  const program = start(args, { permissions: SERVE_PERMISSIONS, ...options });
  try {
    await use(program);
  } finally {
    program.kill("SIGKILL");
    await within("its end", 5000, program.ended);
  }
}

/** Where a socket can be; the one in the abstract namespace has no file. */
const SOCKETS: Record<string, (folder: string) => string> = {
  "a file": (folder) => join(folder, "notify"),
  "an abstract name": (folder) => `@speedlimit${folder.replaceAll("/", "-")}`,
};

describe("a server with NOTIFY_SOCKET", () => {
  for (const [name, socketIn] of Object.entries(SOCKETS)) {
    test(`that is ${name}: tells when it serves, that it is alive, and when it ends`, async (t) => {
      if (!hasPython) return skip(t, "no python3");
      await withFolder(async (folder) => {
        const socket = socketIn(folder);
        await receiving(socket, async ({ told, saw }) => {
          const env = { NOTIFY_SOCKET: socket, WATCHDOG_USEC: "200000" };
          await serving({ env }, async (program) => {
            const ready = await saw("READY=1");
            assertEquals(ready, told[0]);
            const port = /^STATUS=listening on 127\.0\.0\.1:(\d+)$/m.exec(ready.text)?.[1];
            // By then it can be connected to. This reader does not close: the end takes a second.
            const reader = connectSocket({
              port: Number(port),
              host: "127.0.0.1",
              allowHalfOpen: true,
            });
            await within("a message", 5000, new Promise((done) => reader.once("data", done)));
            const alive = () => told.filter(({ text }) => text === "WATCHDOG=1");
            await until("ten signs of life", 10_000, () => alive().length >= 10);
            const [first, last] = [alive()[0]!, alive()[9]!];
            // Nine tenths of a second, less what the first one may have been late.
            assertGreater(last.atSeconds - first.atSeconds, 0.4);
            program.kill("SIGTERM");
            const stopping = await saw("STOPPING=1");
            const end = await within("its end", 10_000, program.ended);
            reader.destroy();
            assertEquals([end.status, end.stderr], [0, ""]);
            assertEquals(stopping.text, "STOPPING=1");
            assertEquals(told.filter(({ text }) => text === "STOPPING=1").length, 1);
            // It is alive while it ends.
            await until("a last sign of life", 5000, () => told.at(-1)!.text === "WATCHDOG=1");
          });
        });
      });
    });
  }

  test("tells that it ends when it has nothing more to do; without WATCHDOG_USEC no more", async (t) => {
    if (!hasPython) return skip(t, "no python3");
    await withFolder(async (folder) => {
      const socket = join(folder, "notify");
      const input = join(folder, "input");
      writeFileSync(input, "one\ntwo\n");
      await receiving(socket, async ({ told, saw }) => {
        const args = ["server.ts", "--port", "0", "--source", input, "--frame", "line"];
        for (const WATCHDOG of [{}, { WATCHDOG_USEC: "1000", WATCHDOG_PID: "1" }]) {
          const program = start([...args, "--overflow", "block"], {
            permissions: SERVE_PERMISSIONS,
            env: { NOTIFY_SOCKET: socket, ...WATCHDOG },
          });
          const [, port] = await within("its start", 10_000, program.saw(/listening on \S+:(\d+)/));
          await saw("READY=1");
          const reader = connectSocket({ port: Number(port), host: "127.0.0.1" });
          reader.resume().on("end", () => reader.end());
          assertEquals((await within("its end", 10_000, program.ended)).status, 0);
          await saw("STOPPING=1");
          const texts = told.map(({ text }) => text.split("\n")[0]);
          assertEquals(texts, ["READY=1", "STOPPING=1"]);
          (told as Told[]).length = 0;
        }
      });
    });
  });

  test("that nobody has bound: serves, and says so once", async () => {
    await withFolder(async (folder) => {
      const env = { NOTIFY_SOCKET: join(folder, "nobody"), WATCHDOG_USEC: "20000" };
      await serving({ env }, async (program) => {
        await within("the remark", 10_000, program.saw(/cannot notify systemd/));
        program.kill("SIGTERM");
        const { status, stderr } = await within("its end", 5000, program.ended);
        assertEquals(status, 0);
        assertEquals(
          stderr,
          `cannot notify systemd: nothing takes messages at NOTIFY_SOCKET=${env.NOTIFY_SOCKET}\n`,
        );
      });
    });
  });
});

describe("without libc", () => {
  /** The environment without systemd-notify: only what starts the runtimes. */
  const withoutNotify = (folder: string): string => {
    const node = (process.env.PATH ?? "").split(delimiter).map((each) => join(each, "node"))
      .find((each) => existsSync(each));
    mkdirSync(join(folder, "bin"));
    if (node !== undefined) symlinkSync(node, join(folder, "bin/node"));
    return join(folder, "bin");
  };
  const permissions = SERVE_PERMISSIONS.filter((each) => each !== "--allow-ffi");

  test("systemd's own program tells it", async (t) => {
    if (runtime === "bun") return skip(t, "Bun always has FFI");
    if (!hasPython) return skip(t, "no python3");
    if (spawnSync("systemd-notify", ["--version"]).status !== 0) {
      return skip(t, "no systemd-notify");
    }
    await withFolder(async (folder) => {
      const socket = join(folder, "notify");
      await receiving(socket, async ({ saw }) => {
        const options = {
          ffi: false,
          // Deno's node:child_process reads the environment.
          permissions: [
            ...permissions.filter((each) => !each.startsWith("--allow-env")),
            ...["--allow-env", "--allow-run=systemd-notify"],
          ],
          env: { NOTIFY_SOCKET: socket },
        };
        await serving(options, async (program) => {
          const { text } = await saw("READY=1");
          assertMatch(text, /^STATUS=listening on /m);
          program.kill("SIGTERM");
          await saw("STOPPING=1");
          const { status, stderr } = await within("its end", 10_000, program.ended);
          assertEquals([status, stderr], [0, ""]);
        });
      });
    });
  });

  test("and without that program: serves, and says so in one line", async (t) => {
    if (runtime === "bun") return skip(t, "Bun always has FFI");
    await withFolder(async (folder) => {
      const env = { NOTIFY_SOCKET: join(folder, "notify"), PATH: withoutNotify(folder) };
      await serving({ ffi: false, permissions, env }, async (program) => {
        await within("the remark", 10_000, program.saw(/cannot notify systemd/));
        program.kill("SIGTERM");
        const { status, stderr } = await within("its end", 5000, program.ended);
        assertEquals(status, 0);
        assertMatch(stderr, /^cannot notify systemd: libc .*; and systemd-notify cannot .*\n$/);
        assertLess(stderr.split("\n").length, 3);
      });
    });
  });
});

describe("the unit of docs/operations.md", () => {
  test("is one that systemd takes", async (t) => {
    if (spawnSync("systemd-analyze", ["--version"]).status !== 0) {
      return skip(t, "no systemd-analyze");
    }
    const page = readFileSync(join(ROOT, "docs/operations.md"), "utf8");
    const unit = /^```ini\n([\s\S]*?)^```$/m.exec(page)![1]!;
    await withFolder((folder) => {
      const file = join(folder, "speedlimit.service");
      // It looks for the program.
      writeFileSync(file, unit.replace(/^ExecStart=\S+/m, "ExecStart=/bin/true"));
      const { status, stderr, stdout } = spawnSync("systemd-analyze", ["verify", file], {
        encoding: "utf8",
      });
      const ours = `${stdout}${stderr}`.split("\n").filter((line) => line.includes("speedlimit"));
      assertEquals([status, ours], [0, []]);
      return Promise.resolve();
    });
  });
});
