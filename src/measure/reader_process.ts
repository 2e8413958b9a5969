/** A reader under test as a process that we start from a command, and end. */
import { type ChildProcess, spawn } from "node:child_process";
import process from "node:process";
import type { Address } from "../kernel/address.ts";

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

/** The command with `{host}` and `{port}` replaced in each of its words. */
export function fillCommand(command: readonly string[], { host, port }: Address): string[] {
  return command.map((word) => word.replaceAll("{host}", host).replaceAll("{port}", String(port)));
}

/** How much of the end of a reader's stderr is kept: a few lines. Characters. */
const KEPT_STDERR = 2000;
/** Time between SIGTERM and SIGKILL. */
const TERM_GRACE_MS = 300;

/**
 * One reader's process. It leads a process group of its own, so that the processes it starts can be
 * ended with it. Its stdout is dropped; its stderr is kept for failure messages.
 */
export class ReaderProcess {
  /** Settles when the process has ended; never rejects. */
  readonly exited: Promise<Exit>;
  exit: Exit | undefined;
  /** Why it could not be started. */
  startError: Error | undefined;
  readonly #child: ChildProcess;
  #stderr = "";

  /** `folder`: where it is started; default: this process's folder. */
  constructor(command: readonly string[], folder?: string) {
    const [program, ...args] = command as [string, ...string[]];
    this.#child = spawn(program, args, {
      stdio: ["ignore", "ignore", "pipe"],
      detached: true,
      ...(folder === undefined ? {} : { cwd: folder }),
    });
    this.#child.stderr!.on("data", (chunk: Uint8Array) => {
      this.#stderr = (this.#stderr + new TextDecoder().decode(chunk)).slice(-KEPT_STDERR);
    });
    this.exited = new Promise((resolve) => {
      const end = (exit: Exit) => {
        this.exit ??= exit;
        resolve(this.exit);
      };
      this.#child.once("error", (error) => {
        this.startError = error;
        end({ code: null, signal: null });
      });
      this.#child.once("exit", (code, signal) => end({ code, signal }));
    });
  }

  /**
   * One line of its stderr that probably explains a failure: the last line with the word error,
   * else the last line; empty where stderr is empty.
   */
  get stderrLine(): string {
    const lines = this.#stderr.trim().split("\n").map((line) => line.trim());
    return lines.findLast((line) => /\berror\b|Error:/i.test(line)) ?? lines.at(-1) ?? "";
  }

  /** Ends the process and all that it started: with SIGTERM first, then with SIGKILL. */
  async kill(): Promise<void> {
    if (this.startError === undefined) {
      this.#signal("SIGTERM");
      const timer = setTimeout(() => this.#signal("SIGKILL"), TERM_GRACE_MS);
      await this.exited;
      clearTimeout(timer);
      // Processes that it has started may still run.
      this.#signal("SIGKILL");
    }
    this.#child.stderr!.destroy();
  }

  #signal(signal: "SIGTERM" | "SIGKILL"): void {
    const { pid } = this.#child;
    if (pid === undefined) return;
    try {
      process.kill(-pid, signal);
    } catch {
      // The process group is empty.
    }
  }
}
