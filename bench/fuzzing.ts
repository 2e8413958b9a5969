/**
 * Random input for every parser of what comes from outside: lines of the protocol, frames, numbered
 * messages, headers of segments, and command lines. A parser may refuse it with its own error, and with
 * no other.
 */
import {
  AckParser,
  LineReader,
  parseAt,
  parseHello,
  parseResume,
} from "../src/message/protocol.ts";
import { ProtocolError } from "../src/message/protocol.ts";
import { createFramer, parseFrame } from "../src/message/frame.ts";
import { type Frame, FrameError } from "../src/message/framer.ts";
import { NumberedVerifier } from "../src/message/numbered.ts";
import {
  fileHeaderError,
  formatFileHeader,
  formatRecordHeader,
  parseRecordHeader,
  RECORD_HEADER,
  streamCrc,
} from "../src/queue/segment_format.ts";
import { HelpRequest, UsageError } from "../src/cli/command_line.ts";
import { parseServerCommandLine } from "../src/cli/server_options.ts";
import { parseSource } from "../src/source/source_kinds.ts";
import {
  parseBytes,
  parseCount,
  parseDuration,
  parseHostPort,
  parsePort,
  parseRate,
  UnitError,
} from "../src/text/units.ts";

/** Random numbers and what is made of them. */
export class Fuzz {
  readonly #random: () => number;

  /** `random`: from 0 to 1. */
  constructor(random: () => number) {
    this.#random = random;
  }

  below(most: number): number {
    return Math.floor(this.#random() * most);
  }

  pick<T>(from: readonly T[]): T {
    return from[this.below(from.length)]!;
  }

  /** Random bytes, mostly few. */
  bytes(most = 400): Uint8Array {
    const length = this.below(this.pick([4, 40, most]));
    return Uint8Array.from({ length }, () => this.below(256));
  }

  /** What is right, or nearly so: with bytes changed, removed, doubled or added. */
  near(right: Uint8Array): Uint8Array {
    const bytes = [...right];
    for (let i = this.below(4); i > 0; i--) {
      const at = this.below(bytes.length + 1);
      const how = this.below(4);
      if (how === 0) bytes[at] = this.below(256);
      else if (how === 1) bytes.splice(at, 1 + this.below(8));
      else if (how === 2) bytes.splice(at, 0, ...bytes.slice(at, at + this.below(20)));
      else bytes.splice(at, 0, this.below(256));
    }
    return Uint8Array.from(bytes, (byte) => byte ?? 0);
  }

  text(parts: readonly string[]): string {
    return Array.from({ length: 1 + this.below(5) }, () => this.pick(parts)).join("");
  }

  /** The same bytes in pieces. */
  *pieces(bytes: Uint8Array): Generator<Uint8Array> {
    for (let at = 0; at < bytes.length;) {
      const end = at + 1 + this.below(this.pick([1, 7, 300]));
      yield bytes.subarray(at, end);
      at = end;
    }
  }
}

const encode = (text: string): Uint8Array => new TextEncoder().encode(text);

const LINES = [
  "anna\n",
  "resume - -\n",
  "resume 12345 0123456789abcdef\n",
  "at 0 0123456789abcdef\n",
  "ack 5\nack 6\nack 9007199254740991\n",
  `ack ${"9".repeat(300)}\n`,
].map(encode);

const NUMBERS = ["0", "1", "-1", "1e9", "64k", "20MB/s", "1M/s", "max", "250ms", "10x", "NaN", " "];
const WORDS = [
  ...NUMBERS,
  "tcp://",
  "[::1]",
  ":",
  "8000",
  "127.0.0.1",
  "fixed:",
  "line",
  "u32",
  "\0",
];

const STREAM = "0123456789abcdef";

/** Throws an Error where a parser throws another error than its own. */
function only(
  kinds: readonly (abstract new (...args: never[]) => Error)[],
  parse: () => void,
): void {
  try {
    parse();
  } catch (error) {
    if (!kinds.some((kind) => error instanceof kind)) throw error;
    const { message } = error as Error;
    if (error instanceof HelpRequest) return;
    if (message === "" || message.includes("\n")) {
      throw new Error(`not one line: ${JSON.stringify(message)}`, { cause: error });
    }
  }
}

function check(holds: boolean, what: string): void {
  if (!holds) throw new Error(what);
}

/** Each tries one input. Throws an Error if its parser does what it must not. */
export const PARSERS: Record<string, (fuzz: Fuzz) => void> = {
  "lines of the protocol"(fuzz) {
    const bytes = fuzz.below(3) === 0 ? fuzz.bytes() : fuzz.near(fuzz.pick(LINES));
    only([ProtocolError], () => {
      const lines = new LineReader();
      for (const piece of fuzz.pieces(bytes)) {
        lines.push(piece);
        for (let line; (line = lines.next()) !== undefined;) {
          for (const parse of [parseHello, parseResume, parseAt]) {
            only([ProtocolError], () => parse(line!));
          }
        }
      }
    });
    only([ProtocolError], () => {
      const acks = new AckParser();
      for (const piece of fuzz.pieces(bytes)) {
        check(acks.push(piece, 1e6) <= 1e6, "an acknowledgement beyond what was sent");
      }
    });
  },

  frames(fuzz) {
    const size = 1 + fuzz.below(20);
    const frame: Frame = fuzz.pick([
      { kind: "fixed", size },
      { kind: "line" },
      { kind: "u32" },
      { kind: "none" },
    ]);
    const framer = createFramer(frame, 1 + fuzz.below(100));
    const bytes = fuzz.near(fuzz.pick([
      encode("a line\nanother line\n\n"),
      Uint8Array.of(0, 0, 0, 3, 1, 2, 3, 0, 0, 0, 0, 0, 0, 0, 1, 9),
      fuzz.bytes(),
    ]));
    for (const piece of fuzz.pieces(bytes)) {
      const { first, end, messages, error } = framer.push(piece);
      check(first <= end && end <= piece.length, `${frame.kind}: ${first}, ${end}`);
      check(messages > 0 === end > 0, `${frame.kind}: ${messages} messages end at ${end}`);
      check(error === undefined || error instanceof FrameError, "another error");
    }
    only([FrameError], () => {
      framer.reset();
      const { error, end } = framer.push(bytes);
      const whole = bytes.subarray(0, end);
      const offset = fuzz.below(whole.length + 1);
      const floor = framer.floor(whole, offset);
      check(floor <= offset && floor >= 0, `${frame.kind}: the start ${floor} of ${offset}`);
      if (error !== undefined) throw error;
    });
  },

  "numbered messages"(fuzz) {
    const verifier = new NumberedVerifier(20 + fuzz.below(50), fuzz.below(5));
    for (const piece of fuzz.pieces(fuzz.bytes())) verifier.push(piece);
    verifier.end();
  },

  "headers of segments"(fuzz) {
    const crc = streamCrc(STREAM);
    const batch = { offset: fuzz.below(1e9), bytes: fuzz.bytes(), messages: 1, storedAtMs: 1e12 };
    const record = parseRecordHeader(
      fuzz.near(formatRecordHeader(batch, crc)).slice(0, RECORD_HEADER),
    );
    if (record !== undefined) {
      check(record.length > 0 && Number.isSafeInteger(record.offset + record.length), "a length");
    }
    const wrong = fileHeaderError(fuzz.near(formatFileHeader(STREAM, 5)), STREAM);
    check(wrong === undefined || !wrong.includes("\n"), "not one line");
  },

  "quantities and addresses"(fuzz) {
    const text = fuzz.text(WORDS);
    for (
      const parse of [
        parseBytes,
        parseCount,
        parseDuration,
        parseRate,
        parseHostPort,
        parsePort,
        parseFrame,
        parseSource,
      ]
    ) {
      only([UnitError], () => void parse(text));
    }
  },

  "command lines"(fuzz) {
    const options = [
      ...["--port", "--rate", "--overflow", "--spill", "--source", "--frame", "--ack", "--memory"],
      ...[
        "--retain",
        "--start",
        "--spill-full",
        "--max-reader-names",
        "--durable",
        "--allow",
        "-h",
      ],
      ...["--on-bad-frame", "--metrics", "--line-format", "--", "-", "spill", "x", "10.0.0.0/8"],
    ];
    const args = Array.from(
      { length: fuzz.below(6) },
      () => fuzz.below(3) === 0 ? fuzz.text(WORDS) : fuzz.pick(options),
    );
    only([UsageError, HelpRequest], () => void parseServerCommandLine(args, "server.ts"));
  },
};
