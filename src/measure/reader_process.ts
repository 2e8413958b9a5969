/** A reader under test as a process that we start from a command, and end. */
import { type ChildProcess, spawn } from "node:child_process";
import { StringDecoder } from "node:string_decoder";
import { setTimeout as sleep } from "node:timers/promises";
import type { Address } from "../kernel/address.ts";
import { ProcessSession } from "../kernel/process_session.ts";
import { printable } from "../text/printable.ts";
import { formatHostPort } from "../text/units.ts";

/** The reader under test failed; the message says what it did. */
export class ReaderFailed extends Error {
  override name = "ReaderFailed";
}

/** How a reader's process ended. */
export interface Exit {
  code: number | null;
  signal: string | null;
}

/** How it ended, as one clause: `exited with status 3`, `was killed by SIGSEGV`. */
export function describeExit({ code, signal }: Exit): string {
  return signal === null ? `exited with status ${code}` : `was killed by ${signal}`;
}

/**
 * The command with `{host}` and `{port}` replaced in each of its words. In `{host}:{port}` an IPv6
 * address is in brackets, which separate it from the port. `out` stands for `{out}`.
 */
export function fillCommand(
  command: readonly string[],
  address: Address,
  out?: Address,
): string[] {
  const { host, port } = address;
  return command.map((word) => {
    const filled = word.replaceAll("{host}:{port}", formatHostPort(address))
      .replaceAll("{host}", host).replaceAll("{port}", String(port));
    return out === undefined ? filled : filled.replaceAll("{out}", formatHostPort(out));
  });
}

/** How much of the end of a reader's stderr is kept: a few lines. Characters. */
const KEPT_STDERR = 2000;
/** How often to look whether processes of a reader's session still run, once its first has ended. */
const LOOK_EVERY_MS = 10;
/** How long what a process has written may take to arrive once the process has ended. */
const LAST_WORDS_MS = 100;
/** SIGKILL takes longer only for a process that waits for a device: how often to send it. */
const KILLS = 10;
const KILLED_MS = 200;

/**
 * One reader's process. It leads a session of its own, so that the processes it starts can be ended
 * with it, by `kill` or when this process ends. Its stdout is dropped; its stderr is kept for
 * failure messages.
 */
export class ReaderProcess {
  /** Settles when the process has ended; never rejects. */
  readonly exited: Promise<Exit>;
  exit: Exit | undefined;
  /** Why it could not be started. */
  startError: Error | undefined;
  readonly #child: ChildProcess | undefined;
  readonly #session: ProcessSession | undefined;
  #stderr = "";
  /** Settles when there are no more words, or soon after it has ended: its children may have some. */
  #lastWords: Promise<unknown> = Promise.resolve();

  /**
   * `folder`: where it is started; default: this process's folder. `onStdout` is called with what it writes to its
   * standard output; without it, that is discarded.
   */
  constructor(
    command: readonly string[],
    folder?: string,
    onStdout?: (chunk: Uint8Array) => void,
  ) {
    const { promise, resolve } = Promise.withResolvers<Exit>();
    this.exited = promise;
    const end = (exit: Exit) => {
      this.#session?.leaderReaped();
      this.exit ??= exit;
      resolve(this.exit);
    };
    const fail = (error: Error) => {
      this.startError = error;
      end({ code: null, signal: null });
    };
    const [program, ...args] = command as [string, ...string[]];
    try {
      this.#child = spawn(program, args, {
        stdio: ["ignore", onStdout === undefined ? "ignore" : "pipe", "pipe"],
        detached: true,
        ...(folder === undefined ? {} : { cwd: folder }),
      });
    } catch (error) {
      // A word contains a NUL.
      fail(error as Error);
      return;
    }
    const { pid, stderr, stdout } = this.#child;
    stdout?.on("data", (chunk: Uint8Array) => onStdout!(chunk));
    stdout?.on("error", () => {});
    this.#child.once("error", fail);
    this.#child.once("exit", (code, signal) => end({ code, signal }));
    if (pid !== undefined) this.#session = new ProcessSession(pid);
    // A character may be spread over two chunks.
    const decoder = new StringDecoder("utf8");
    // `stderr` is missing where this process has no descriptor left for it.
    stderr?.on("data", (chunk: Uint8Array) => {
      this.#stderr = (this.#stderr + decoder.write(chunk as Buffer)).slice(-KEPT_STDERR);
    });
    stderr?.on("error", () => {});
    if (stderr) {
      const closed = new Promise((resolve) => stderr.once("close", resolve));
      const late = this.exited.then(() => sleep(LAST_WORDS_MS, undefined, { ref: false }));
      this.#lastWords = Promise.race([closed, late]);
    }
  }

  /** Of its process, which leads a process group; undefined where it was not started. */
  get pid(): number | undefined {
    return this.#child?.pid;
  }

  /** Whether it was started; if not, `startError` soon says why. */
  get started(): boolean {
    return this.#session !== undefined;
  }

  /** Once it has ended: resolves when `stderrLine` is final. Its words may come after its exit. */
  async saidAll(): Promise<void> {
    await this.#lastWords;
  }

  /**
   * One line of its stderr that probably explains a failure: the last line with the word error,
   * else the last line; empty where stderr is empty. Without control characters.
   */
  get stderrLine(): string {
    const lines = this.#stderr.split(/[\r\n]+/).map((line) => printable(line).trim())
      .filter((line) => line !== "");
    return lines.findLast((line) => /\berror\b|Error:/i.test(line)) ?? lines.at(-1) ?? "";
  }

  /**
   * Ends the process and all that it started: with SIGTERM first, then, after `graceMs`, with
   * SIGKILL. Resolves with whether SIGTERM was enough.
   */
  async kill(graceMs: number): Promise<boolean> {
    const session = this.#session;
    let enough = true;
    if (session !== undefined) {
      session.signal("SIGTERM");
      // One that is stopped (SIGSTOP) could not act on it.
      session.signal("SIGCONT");
      enough = await this.#endsWithin(graceMs);
      if (!enough) {
        // Again for those that others have started meanwhile.
        for (let i = 0; i < KILLS; i++) {
          session.signal("SIGKILL");
          if (await this.#endsWithin(KILLED_MS)) break;
        }
      }
    }
    this.#child?.stderr?.destroy();
    this.#child?.stdout?.destroy();
    return enough;
  }

  /** Whether it and all that it started have ended, by themselves or within that time. */
  async #endsWithin(ms: number): Promise<boolean> {
    const endMs = performance.now() + ms;
    const timer = new AbortController();
    const late = sleep(ms, true, { signal: timer.signal }).catch(() => true);
    const isLate = await Promise.race([this.exited.then(() => false), late]);
    timer.abort();
    if (isLate) return false;
    while (true) {
      // First of all, for those of other readers that end at the same time: one look is for all.
      await sleep(LOOK_EVERY_MS);
      if (!this.#session!.runs) return true;
      if (performance.now() >= endMs) return false;
    }
  }
}
