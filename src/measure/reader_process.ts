/** Where readers come from: a command that we start, or programs that connect by themselves. */
import { type ChildProcess, spawn } from "node:child_process";
import process from "node:process";
import type { Address } from "../kernel/address.ts";

/** The reader under test did not do its part; the message says what it did instead. */
export class ReaderFailed extends Error {
  override name = "ReaderFailed";
}

/** How a reader's process ended. */
export interface Exit {
  code: number | null;
  signal: string | null;
}

/** As one clause: `exited with status 3`, `was killed by SIGSEGV`. */
export function describeExit({ code, signal }: Exit): string {
  return signal === null ? `exited with status ${code}` : `was killed by ${signal}`;
}

/** `{host}` and `{port}` in the words of a command, replaced. */
export function fillCommand(command: readonly string[], { host, port }: Address): string[] {
  return command.map((word) => word.replaceAll("{host}", host).replaceAll("{port}", String(port)));
}

/** The end of what a reader wrote to stderr; more than a few lines help nobody. */
const KEPT_STDERR = 2000;
const TERM_PATIENCE_MS = 300;

/**
 * One reader's process, the leader of a process group of its own, so that whatever it starts ends
 * with it. Its stdout is dropped, its stderr kept for the message of a failure.
 */
export class ReaderProcess {
  /** Settles when the process has ended; never rejects. */
  readonly exited: Promise<Exit>;
  exit: Exit | undefined;
  /** Why it could not be started. */
  startError: Error | undefined;
  readonly #child: ChildProcess;
  #stderr = "";

  constructor(command: readonly string[]) {
    const [program, ...args] = command as [string, ...string[]];
    this.#child = spawn(program, args, { stdio: ["ignore", "ignore", "pipe"], detached: true });
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
   * What it said of its end on stderr, as one line: the last one that speaks of an error, else the
   * last one; empty when it said nothing.
   */
  get lastWords(): string {
    const lines = this.#stderr.trim().split("\n").map((line) => line.trim());
    return lines.findLast((line) => /\berror\b|Error:/i.test(line)) ?? lines.at(-1) ?? "";
  }

  /** Ends it and all that it started: asks first, then does not ask. */
  async kill(): Promise<void> {
    if (this.startError === undefined) {
      this.#signal("SIGTERM");
      const timer = setTimeout(() => this.#signal("SIGKILL"), TERM_PATIENCE_MS);
      await this.exited;
      clearTimeout(timer);
      // What it started itself may have outlived it.
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
      // Nobody of the group is left.
    }
  }
}
