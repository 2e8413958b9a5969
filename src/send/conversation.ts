/** Follows a script on one connection: first all its statements in order, then its answers and heartbeats. */
import { type Connection, DEFAULT_READ_SIZE } from "../net/net.ts";
import { printable } from "../text/printable.ts";
import { formatSeconds } from "../text/units.ts";
import type { Script, Statement } from "./script.ts";

/** The reader did not say what the script expects; the message is a clause. */
export class UnexpectedReply extends Error {
  override name = "UnexpectedReply";
}

/** What is said between two messages. */
export interface Interjecting {
  interject(bytes: Uint8Array): void;
  /** Whether something is still to be said. */
  readonly interjecting: boolean;
}

/** So much of what the reader has said is kept for the statements. Characters. */
const KEPT = 65_536;
/** So much of it is shown. */
const SHOWN = 60;

type Answer = Extract<Statement, { kind: "answer" }>;
type Every = Extract<Statement, { kind: "every" }>;

export class Conversation {
  /** Bytes that were sent before the first message. */
  sent = 0;
  readonly #connection: Connection;
  readonly #answers: Answer[] = [];
  readonly #heartbeats: Every[] = [];
  /** What the reader has said and no statement has used; a character a byte. */
  #heard = "";
  /** A read that has begun, and whose bytes nobody has taken. */
  #reading: Promise<Uint8Array | null> | undefined;

  constructor(connection: Connection) {
    this.#connection = connection;
  }

  /** Resolves when all statements are done. Rejects with an UnexpectedReply. */
  async begin(script: Script): Promise<void> {
    for (const statement of script) {
      switch (statement.kind) {
        case "expect":
          await this.#expect(statement);
          break;
        case "send":
          await this.#send(statement.bytes);
          break;
        case "every":
          this.#heartbeats.push(statement);
          break;
        case "answer":
          this.#answers.push(statement);
          break;
      }
    }
  }

  /** Answers, and says what is due, until the peer's FIN. */
  async goOn(flood: Interjecting): Promise<void> {
    const timers = this.#heartbeats.map(({ everyMs, bytes }) =>
      setInterval(() => {
        // One that does not read gets no more of them.
        if (!flood.interjecting) flood.interject(bytes);
      }, everyMs)
    );
    try {
      while (true) {
        for (const { bytes } of this.#answered(this.#heard.length)) flood.interject(bytes);
        if (!await this.#hear()) return;
      }
    } finally {
      for (const timer of timers) clearInterval(timer);
    }
  }

  async #expect(
    { line, pattern, timeoutMs }: Extract<Statement, { kind: "expect" }>,
  ): Promise<void> {
    const endMs = performance.now() + timeoutMs;
    const what = `line ${line} of the script expects /${printable(pattern.source)}/`;
    while (true) {
      pattern.lastIndex = 0;
      const match = pattern.exec(this.#heard);
      // What comes before it may be something to answer.
      for (const { bytes } of this.#answered(match?.index ?? this.#heard.length)) {
        await this.#send(bytes);
      }
      if (match !== null) {
        // The answers have taken what is before it.
        pattern.lastIndex = 0;
        const now = pattern.exec(this.#heard)!;
        this.#heard = this.#heard.slice(now.index + now[0].length);
        return;
      }
      const heard = this.#heard === ""
        ? "the reader has said nothing"
        : `the reader has said "${printable(this.#heard.slice(-SHOWN))}"`;
      const left = endMs - performance.now();
      if (left <= 0) {
        throw new UnexpectedReply(
          `${what}, and within ${formatSeconds(timeoutMs / 1000)} ${heard}`,
        );
      }
      if (!await this.#hear(left)) {
        throw new UnexpectedReply(`${what}, and ${heard} and closed its connection`);
      }
    }
  }

  /** The answers to what was heard up to there, in order; that is then used up. */
  #answered(end: number): Answer[] {
    const found: Answer[] = [];
    while (true) {
      let first: { answer: Answer; at: number; end: number } | undefined;
      for (const answer of this.#answers) {
        answer.pattern.lastIndex = 0;
        const match = answer.pattern.exec(this.#heard.slice(0, end));
        if (match === null || (first !== undefined && match.index >= first.at)) continue;
        first = { answer, at: match.index, end: match.index + match[0].length };
      }
      if (first === undefined) return found;
      found.push(first.answer);
      this.#heard = this.#heard.slice(first.end);
      end -= first.end;
    }
  }

  /** Waits for more, at most so long; false: the peer will say no more. */
  async #hear(ms = Infinity): Promise<boolean> {
    this.#reading ??= Promise.resolve(this.#connection.read(DEFAULT_READ_SIZE));
    let timer: ReturnType<typeof setTimeout> | undefined;
    const late = new Promise<undefined>((resolve) => {
      if (ms < Infinity) timer = setTimeout(() => resolve(undefined), ms);
    });
    const chunk = await Promise.race([this.#reading, late]);
    clearTimeout(timer);
    if (chunk === undefined) return true;
    this.#reading = undefined;
    if (chunk === null) return false;
    let text = "";
    for (const byte of chunk) text += String.fromCharCode(byte);
    this.#heard = (this.#heard + text).slice(-KEPT);
    return true;
  }

  async #send(bytes: Uint8Array): Promise<void> {
    for (let at = 0; at < bytes.length;) {
      const taken = await this.#connection.write(bytes.subarray(at));
      if (taken === 0) {
        throw new UnexpectedReply("the reader closed its connection during the script");
      }
      at += taken;
      this.sent += taken;
    }
  }
}
