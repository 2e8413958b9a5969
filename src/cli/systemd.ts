/**
 * Tells systemd how this process does (sd_notify(3)): when it is ready, that it is still alive, and
 * when it begins to end.
 */
import { execFile } from "node:child_process";
import process from "node:process";
import { setTimeout as delay } from "node:timers/promises";
import { libc } from "../kernel/libc.ts";
import { sendDatagram } from "../kernel/unix_datagram.ts";

/** systemd reads its socket late when it has much to do, and the socket's queue is short. */
const TRIES = 20;
const RETRY_MS = 100;
/** How long systemd's own program may take for a message. */
const RUN_MS = 10_000;
/** The longest timeout of setInterval. */
const MOST_MS = 2 ** 31 - 1;

export class Systemd {
  readonly #socket: string;
  readonly #onProblem: (line: string) => void;
  #sending: Promise<void> = Promise.resolve();
  #watchdog: ReturnType<typeof setInterval> | undefined;
  #stopping = false;
  #closed = false;
  /** It cannot be told anything: that is said once. */
  #failed = false;

  /** `socket`: as NOTIFY_SOCKET; `onProblem` is called at most once. */
  constructor(socket: string, onProblem: (line: string) => void) {
    this.#socket = socket;
    this.#onProblem = onProblem;
  }

  /** Undefined where NOTIFY_SOCKET is not set: systemd does not expect to be told anything. */
  static fromEnvironment(onProblem: (line: string) => void): Systemd | undefined {
    const socket = environmentOf("NOTIFY_SOCKET");
    return socket === undefined ? undefined : new Systemd(socket, onProblem);
  }

  /** The process serves. From now on systemd is told twice in each WATCHDOG_USEC that it is alive. */
  ready(status: string): void {
    if (this.#stopping) return;
    this.#notify(`READY=1\nSTATUS=${status}`);
    const everyMs = watchdogMs();
    if (everyMs === undefined) return;
    this.#watchdog = setInterval(() => this.#notify("WATCHDOG=1"), everyMs / 2);
  }

  /** The process begins to end; further calls do nothing. It is still alive. */
  stopping(): void {
    if (this.#stopping) return;
    this.#stopping = true;
    this.#notify("STOPPING=1");
  }

  /** Nothing more is told. Resolves once what was told has been sent, if that can be at once. */
  async close(): Promise<void> {
    clearInterval(this.#watchdog);
    this.#closed = true;
    await this.#sending;
  }

  #notify(text: string): void {
    if (this.#failed) return;
    // One after the other, in their order.
    this.#sending = this.#sending.then(async () => {
      if (this.#failed) return;
      try {
        await (typeof libc === "string" ? runNotify(text) : this.#send(text));
      } catch (error) {
        this.#failed = true;
        clearInterval(this.#watchdog);
        this.#onProblem(`cannot notify systemd: ${(error as Error).message}`);
      }
    });
  }

  async #send(text: string): Promise<void> {
    for (let i = 0; i < TRIES; i++) {
      if (sendDatagram(this.#socket, text)) return;
      if (this.#closed) break;
      await delay(RETRY_MS);
    }
    throw new Error(`nothing takes messages at NOTIFY_SOCKET=${this.#socket}`);
  }
}

/** Without libc: by systemd's own program, a process for each message. */
function runNotify(text: string): Promise<void> {
  return new Promise((resolve, reject) => {
    const fail = (error: Error) =>
      reject(
        new Error(`${libc}; and systemd-notify cannot do it: ${error.message.split("\n")[0]}`),
      );
    try {
      execFile(
        "systemd-notify",
        text.split("\n"),
        { timeout: RUN_MS },
        (error) => error === null ? resolve() : fail(error),
      );
    } catch (error) {
      // Deno without --allow-run.
      fail(error as Error);
    }
  });
}

/** How often systemd wants to be told that this process is alive; ms. Undefined: never. */
function watchdogMs(): number | undefined {
  const ms = Number(environmentOf("WATCHDOG_USEC")) / 1000;
  const pid = environmentOf("WATCHDOG_PID");
  // Meant for another process, such as the one that has started this one.
  if (pid !== undefined && Number(pid) !== process.pid) return undefined;
  return ms > 0 ? Math.min(ms, MOST_MS) : undefined;
}

function environmentOf(name: string): string | undefined {
  try {
    return process.env[name] || undefined;
  } catch {
    // Deno without --allow-env.
    return undefined;
  }
}
