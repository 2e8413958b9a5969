/** What a reader sends before the server sends anything: its name and its offset (protocol.ts). */
import {
  LineReader,
  parseHello,
  parseResume,
  ProtocolError,
  type StreamOffset,
} from "../message/protocol.ts";
import { type Connection, DEFAULT_READ_SIZE } from "../net/net.ts";
import { formatSeconds } from "../text/units.ts";

/** How long the server waits for a `resume` line that is optional. */
const OPTIONAL_RESUME_MS = 150;

export interface Handshake {
  name?: string;
  /** The reader sent a `resume` line: it will acknowledge what it has stored. */
  acknowledges: boolean;
  /** What the reader has stored; absent: nothing, or it sent no `resume` line. */
  stored?: StreamOffset;
  /** For the lines that follow: acknowledgements may have arrived together with the handshake. */
  lines: LineReader;
  /** A read that is still pending. */
  reading?: Promise<Uint8Array | null>;
}

export type ExpectedResume = "required" | "none" | "optional";

/** Which lines the server expects. */
export interface ExpectedHandshake {
  hello: boolean;
  /**
   * Of the reader with this name (undefined: without one). `optional`: without a `resume` line it is a
   * plain reader, which acknowledges nothing.
   */
  resume: (name: string | undefined) => ExpectedResume;
  /** Time limit for all required lines; ms. */
  handshakeTimeoutMs: number;
}

/** Rejects with a ProtocolError if the reader sends other lines, is too late, or disconnects. */
export async function receiveHandshake(
  connection: Connection,
  expected: ExpectedHandshake,
): Promise<Handshake> {
  const lines = new LineReader();
  const handshake: Handshake = { acknowledges: false, lines };
  let resume: ExpectedResume = expected.hello ? "optional" : expected.resume(undefined);
  const timers: ReturnType<typeof setTimeout>[] = [];
  const after = (ms: number) =>
    new Promise<void>((resolve) => timers.push(setTimeout(resolve, ms)));
  const late = after(expected.handshakeTimeoutMs).then(() => {
    const time = formatSeconds(expected.handshakeTimeoutMs / 1000);
    const what = requiredLines(expected.hello && handshake.name === undefined, resume);
    throw new ProtocolError(`the reader has not sent ${what} within ${time}`);
  });
  late.catch(() => {});
  const take = (chunk: Uint8Array | null): Uint8Array => {
    if (chunk === null) {
      const what = requiredLines(expected.hello && handshake.name === undefined, resume);
      throw new ProtocolError(`the reader disconnected before it sent ${what}`);
    }
    // A copy: the next read invalidates the view, and the LineReader may keep unread lines.
    return chunk.slice();
  };
  const next = async (): Promise<string> => {
    while (true) {
      const line = lines.next();
      if (line !== undefined) return line;
      lines.push(take(await Promise.race([connection.read(DEFAULT_READ_SIZE), late])));
    }
  };
  try {
    if (expected.hello) {
      handshake.name = parseHello(await next());
      resume = expected.resume(handshake.name);
    }
    if (resume === "none") return handshake;
    if (resume === "optional") {
      let line = lines.next();
      if (line === undefined) {
        handshake.reading = Promise.resolve(connection.read(DEFAULT_READ_SIZE));
        const first = await Promise.race([handshake.reading, after(OPTIONAL_RESUME_MS)]);
        // A plain reader may send nothing, something else, or its FIN.
        if (first === undefined || first === null || !startsResume(first)) return handshake;
        delete handshake.reading;
        lines.push(take(first));
        line = await next();
      }
      return withStored(handshake, line);
    }
    return withStored(handshake, await next());
  } finally {
    for (const timer of timers) clearTimeout(timer);
  }
}

function withStored(handshake: Handshake, line: string): Handshake {
  const stored = parseResume(line);
  const acknowledging = { ...handshake, acknowledges: true };
  return stored === undefined ? acknowledging : { ...acknowledging, stored };
}

/** Whether this chunk can be the beginning of a `resume` line. */
function startsResume(chunk: Uint8Array): boolean {
  const keyword = "resume ";
  const start = new TextDecoder("latin1").decode(chunk.subarray(0, keyword.length));
  return start !== "" && keyword.startsWith(start);
}

const requiredLines = (name: boolean, resume: ExpectedResume): string => {
  const offset = resume === "required" ? "its offset (a `resume` line)" : "";
  if (!name) return offset === "" ? "its first line" : offset;
  return offset === "" ? "its name" : `its name and ${offset}`;
};
