/**
 * Reads messages from a file or from standard input, as fast as the sink accepts them or by a
 * schedule, so that a recorded feed can be replayed at a given rate.
 */
import { createHash } from "node:crypto";
import { closeSync, openSync, statSync } from "node:fs";
import { type FileHandle, open, stat } from "node:fs/promises";
import process from "node:process";
import { createFramer } from "../message/frame.ts";
import { type Frame, FrameError, type Framer } from "../message/framer.ts";
import { Schedule, Ticker } from "../send/pacer.ts";
import { BadFrames } from "./bad_frames.ts";
import { Reassembly } from "../message/reassembly.ts";
import type { OnBadFrame, Sink, Source, SourceKind } from "./source.ts";
import type { Rate } from "../text/units.ts";

export interface FileSourceOptions {
  /** `-`: standard input. */
  path: string;
  frame: Frame;
  /** See `createFramer`. */
  maxMessage?: number | undefined;
  /** What to do with a message that is too long; default stop: `run` rejects. */
  onBadFrame?: Exclude<OnBadFrame, "reconnect"> | undefined;
  /** Default max: as fast as the sink accepts them. The schedule starts with the first message. */
  rate?: Rate | undefined;
  /** A ticker shared with others; default: its own. */
  ticker?: Ticker | undefined;
}

/** Bytes that one read of a file requests. */
const BLOCK_BYTES = 1 << 20;

/** A file is known by so many of its first bytes; what is appended to it later changes nothing. */
const BEGINNING_BYTES = 0xffff;

type Deliver = (bytes: Uint8Array, messages: number) => void | Promise<void>;

export class FileSource implements Source {
  /** A file is replayable, and its positions are byte offsets; standard input is not. */
  readonly replayable: boolean;
  readonly #options: FileSourceOptions;
  /** The source's name in error messages. */
  readonly #name: string;
  /** Of the next message; 0 where it is not replayable. */
  #position = 0;
  #pacing: Pacing | undefined;
  #stopped = false;
  #interrupt: (() => void) | undefined;

  constructor(options: FileSourceOptions) {
    this.#options = options;
    this.replayable = options.path !== "-";
    this.#name = this.replayable ? JSON.stringify(options.path) : "standard input";
  }

  async run(sink: Sink, from: number, stream?: string): Promise<void> {
    const { frame, maxMessage, onBadFrame = "stop", rate = "max", ticker } = this.#options;
    let deliver: Deliver = (bytes, messages) => {
      const before = this.#position;
      if (this.replayable) this.#position += bytes.length;
      return sink.push(bytes, messages, before);
    };
    if (rate !== "max") {
      const pacing = new Pacing(rate, createFramer(frame, maxMessage), deliver, ticker);
      deliver = (bytes, messages) => pacing.deliver(bytes, messages);
      this.#pacing = pacing;
    }
    const bad = new BadFrames(onBadFrame, (event) => sink.note(event));
    const skipping = bad.skipping((bytes) => {
      if (this.replayable) this.#position += bytes;
    });
    const messages = new Reassembly(createFramer(frame, maxMessage), deliver, skipping);
    const chunks = this.replayable ? this.#file(sink, from, stream) : this.#standardInput();
    try {
      for await (const chunk of chunks) {
        if (this.#stopped) return;
        await messages.take(chunk);
      }
      if (this.#stopped) return;
      let { partial: rest } = messages;
      if (frame.kind === "line" && rest.length > 0) {
        // The last line may lack its newline.
        await deliver(rest, 1);
        rest = rest.subarray(rest.length);
      }
      bad.close();
      if (!this.#stopped) sink.note({ event: "ended", discarded: rest.length });
    } catch (error) {
      if (!(error instanceof FrameError)) throw error;
      bad.ended(error);
      throw new Error(`invalid data in ${this.#name}: ${error.message}`, { cause: error });
    } finally {
      bad.close();
      this.#pacing?.stop();
    }
  }

  stop(): void {
    this.#stopped = true;
    this.#interrupt?.();
    this.#pacing?.stop();
  }

  async *#file(sink: Sink, from: number, known?: string): AsyncGenerator<Uint8Array> {
    const { path } = this.#options;
    await this.#try(checkIsFile(path));
    const file = await this.#try(open(path));
    try {
      const { stream, position } = await this.#try(findPlace(file, from, known));
      this.#position = position;
      if (stream !== undefined) sink.note({ event: "opened", stream, position });
      const block = new Uint8Array(BLOCK_BYTES);
      for (let at = position; !this.#stopped;) {
        const { bytesRead } = await this.#try(file.read(block, 0, block.length, at));
        if (bytesRead === 0) return;
        at += bytesRead;
        yield bytesRead === block.length ? block : block.subarray(0, bytesRead);
      }
    } finally {
      await file.close();
    }
  }

  /**
   * Not with node:fs: a pending read of a pipe cannot be cancelled, and keeps the process alive. Not
   * by iteration either: on Deno 2.9.5 the process can exit only after `pause` (denoland/deno#32086).
   */
  async *#standardInput(): AsyncGenerator<Uint8Array> {
    const { stdin } = process;
    const chunks: Uint8Array[] = [];
    let over = false;
    const ended = new Promise<void>((resolve, reject) => {
      stdin.once("end", resolve).once("close", resolve).once("error", reject);
    }).finally(() => {
      over = true;
      this.#interrupt?.();
    });
    ended.catch(() => {});
    stdin.on("data", (chunk: Uint8Array) => {
      chunks.push(chunk);
      stdin.pause();
      this.#interrupt?.();
    });
    try {
      while (!this.#stopped) {
        const chunk = chunks.shift();
        if (chunk !== undefined) {
          yield chunk;
        } else if (over) {
          return await this.#try(ended);
        } else {
          stdin.resume();
          await new Promise<void>((resolve) => this.#interrupt = resolve);
        }
      }
    } finally {
      stdin.pause();
      // On Bun 1.4.5 an immediate destroy alone keeps the process alive (oven-sh/bun#35621).
      stdin.unref?.();
      stdin.destroy();
    }
  }

  async #try<T>(what: Promise<T>): Promise<T> {
    try {
      return await what;
    } catch (error) {
      const { code = "", message } = error as { code?: string; message: string };
      throw new Error(`cannot read ${this.#name}: ${MEANINGS[code] ?? message}`, { cause: error });
    }
  }
}

const MEANINGS: Record<string, string> = {
  ENOENT: "there is no such file",
  EACCES: "not permitted",
  EISDIR: "it is a directory",
};

/** Throws an Error if the path is not a regular file. */
async function checkIsFile(path: string): Promise<void> {
  const found = await stat(path);
  if (found.isDirectory()) throw new Error(MEANINGS["EISDIR"]);
  if (!found.isFile()) throw new Error("it is not a regular file; use standard input (-) instead");
}

/**
 * Where to begin in a file: at `from`, if it is the one of the stream `known`; else at its beginning.
 * Throws an Error if it does not reach up to there.
 */
async function findPlace(
  file: FileHandle,
  from: number,
  known: string | undefined,
): Promise<{ stream: string | undefined; position: number }> {
  const isKnown = known !== undefined && known === await identify(file, known);
  const stream = isKnown ? known : await identify(file);
  const position = isKnown ? from : 0;
  const { size } = await file.stat();
  if (position <= size) return { stream, position };
  throw new Error(
    `it has ${size} bytes but was read up to ${position} before: was it cut, or is it another file?`,
  );
}

/**
 * Identifies a file by its beginning, as 16 hex digits: the length of that, and 48 bits of its SHA-256.
 * `like`: with as long a beginning as there. Undefined: the file is empty.
 */
async function identify(file: FileHandle, like?: string): Promise<string | undefined> {
  const length = like === undefined ? BEGINNING_BYTES : parseInt(like.slice(0, 4), 16);
  const bytes = new Uint8Array(length);
  const { bytesRead } = await file.read(bytes, 0, length, 0);
  if (bytesRead === 0) return undefined;
  const hash = createHash("sha256").update(bytes.subarray(0, bytesRead)).digest("hex");
  return bytesRead.toString(16).padStart(4, "0") + hash.slice(0, 12);
}

/** Delivers messages by an absolute schedule; messages that the sink did not accept stay due. */
class Pacing {
  readonly #inBytes: boolean;
  readonly #rate: number;
  readonly #framer: Framer;
  readonly #push: Deliver;
  readonly #ticker: Ticker;
  /** In bytes or messages, the unit of the rate; also `#delivered`. */
  #due = 0;
  #delivered = 0;
  #stopTicking: (() => void) | undefined;
  #wake: (() => void) | undefined;
  #stopped = false;

  constructor(
    rate: Exclude<Rate, "max">,
    framer: Framer,
    push: Deliver,
    ticker: Ticker = new Ticker(),
  ) {
    this.#inBytes = "bytesPerSecond" in rate;
    this.#rate = "bytesPerSecond" in rate ? rate.bytesPerSecond : rate.messagesPerSecond;
    this.#framer = framer;
    this.#push = push;
    this.#ticker = ticker;
  }

  /** Delivers each message when it is due; with a rate in bytes, when its last byte is due. */
  async deliver(bytes: Uint8Array, messages: number): Promise<void> {
    this.#start();
    while (bytes.length > 0 && !this.#stopped) {
      const due = this.#due - this.#delivered;
      let length = bytes.length;
      let count = messages;
      if (due < (this.#inBytes ? length : count)) {
        this.#framer.reset();
        const cut = this.#inBytes
          ? this.#framer.push(bytes.subarray(0, due))
          : this.#framer.push(bytes, due);
        length = cut.end;
        count = cut.messages;
      }
      if (length === 0) {
        await new Promise<void>((resolve) => this.#wake = resolve);
        continue;
      }
      this.#delivered += this.#inBytes ? length : count;
      const pushing = this.#push(bytes.subarray(0, length), count);
      if (pushing instanceof Promise) await pushing;
      bytes = bytes.subarray(length);
      // Without a frame each piece that is delivered counts as one message.
      messages = Math.max(1, messages - count);
    }
  }

  #start(): void {
    if (this.#stopTicking !== undefined || this.#stopped) return;
    const schedule = new Schedule(this.#rate, performance.now());
    this.#stopTicking = this.#ticker.add((nowMs) => {
      this.#due = schedule.due(nowMs);
      this.#wakeUp();
    });
  }

  /** Ends `deliver` without further messages. */
  stop(): void {
    this.#stopped = true;
    this.#stopTicking?.();
    this.#wakeUp();
  }

  #wakeUp(): void {
    const wake = this.#wake;
    this.#wake = undefined;
    wake?.();
  }
}

/** A file name, or `-` for standard input. */
export const FILE_KIND: SourceKind = {
  form: "FILE|-",
  words: "a file, or - for standard input",
  parse(path) {
    if (path === "" || /^\w+:\/\//.test(path)) return undefined;
    return {
      name: path === "-" ? "standard input" : path,
      takesRate: true,
      acknowledges: false,
      reconnects: false,
      onBadFrame: ["stop", "skip"],
      open({ frame, maxMessage, onBadFrame, rate }) {
        if (path !== "-") checkReadable(path);
        if (onBadFrame === "reconnect") {
          throw new Error(`${path} is not a server to connect to again`);
        }
        return new FileSource({ path, frame, maxMessage, onBadFrame, rate });
      },
    };
  },
};

/** Reports an unreadable file at the start, not when the first reader connects. Throws an Error. */
function checkReadable(path: string): void {
  const fail = (why: string, options?: ErrorOptions) => {
    throw new Error(`cannot read the source ${path}: ${why}`, options);
  };
  try {
    const stat = statSync(path);
    if (stat.isDirectory()) fail("it is a directory, not a file");
    if (!stat.isFile()) fail("it is not a regular file; pipe it into the server with --source -");
    // Not accessSync: on Deno that needs more than the permission to read.
    closeSync(openSync(path, "r"));
  } catch (cause) {
    const { code, message } = cause as NodeJS.ErrnoException;
    if (code === undefined) throw cause;
    fail(code === "ENOENT" ? "there is no such file" : message, { cause });
  }
}
