/** server.ts as a process, for the length of a test. */
import { mkdtempSync, rmSync } from "node:fs";
import { connect as connectSocket, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { ServeEvent } from "../src/relay/serve_event.ts";
import { type Program, type RunOptions, start } from "./process.ts";
import { within } from "./within.ts";

/** A server on a free port, with JSON unless told otherwise; it is killed when the test is over. */
export async function serving(
  args: readonly string[],
  use: (program: Program, port: number) => Promise<void>,
  options: RunOptions = {},
): Promise<void> {
  const program = start(["server.ts", "--port", "0", ...args], options);
  try {
    const [, port] = await within(
      "the server's start",
      10_000,
      program.saw(/"listening".*"port":(\d+)|listening on \S+:\d+/),
    );
    const plain = /listening on \S+?:(\d+)/.exec(program.stdout)?.[1];
    await use(program, Number(port ?? plain));
  } finally {
    program.kill("SIGKILL");
    await within("its end", 5000, program.ended);
  }
}

export const json = ["--json"];

/** The events on its standard output: each line is one. */
export const eventsOf = (stdout: string): ServeEvent[] =>
  stdout.trimEnd().split("\n").map((line) => JSON.parse(line));

/** Connects, and reads nothing until told to. */
export async function connect(port: number): Promise<Socket> {
  const socket = connectSocket({ host: "127.0.0.1", port });
  await within("connect", 5000, new Promise((done) => socket.once("connect", done)));
  socket.on("error", () => {});
  return socket;
}

export async function withFolder(use: (folder: string) => Promise<void>): Promise<void> {
  const folder = mkdtempSync(join(tmpdir(), "speedlimit-server-"));
  try {
    await use(folder);
  } finally {
    rmSync(folder, { recursive: true });
  }
}
