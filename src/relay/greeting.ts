/** What a reader says before it is sent anything: its name, and where it wants to go on (ack.ts). */
import {
  LineReader,
  parseHello,
  parseResume,
  ProtocolError,
  type StreamOffset,
} from "../message/protocol.ts";
import { type Connection, DEFAULT_READ_SIZE } from "../net/net.ts";
import { formatSeconds } from "../text/units.ts";

/** One that need not say anything is not waited for longer. */
const CHANCE_MS = 150;

export interface Greeting {
  name?: string;
  /** It asked where to go on: it will acknowledge. */
  asks: boolean;
  /** What it has stored; absent: nothing, or it was not asked. */
  place?: StreamOffset;
  /** Goes on with its lines: acknowledgements may have come with the greeting. */
  lines: LineReader;
  /** A read that is still under way. */
  reading?: Promise<Uint8Array | null>;
}

/** Which lines are expected. */
export interface Expected {
  hello: boolean;
  /** `perhaps`: it may ask where to go on, and is a plain reader if it does not. */
  resume: "yes" | "no" | "perhaps";
  /** Who has not said it all after so many ms is refused. */
  handshakeTimeoutMs: number;
}

/** Rejects with a ProtocolError when the reader says something else, nothing, or leaves. */
export async function greet(connection: Connection, expected: Expected): Promise<Greeting> {
  const lines = new LineReader();
  const greeting: Greeting = { asks: expected.resume === "yes", lines };
  const timers: ReturnType<typeof setTimeout>[] = [];
  const after = (ms: number) =>
    new Promise<void>((resolve) => timers.push(setTimeout(resolve, ms)));
  const late = after(expected.handshakeTimeoutMs).then(() => {
    const time = formatSeconds(expected.handshakeTimeoutMs / 1000);
    throw new ProtocolError(`the reader has not said ${wanted(expected)} in ${time}`);
  });
  late.catch(() => {});
  const take = (chunk: Uint8Array | null): Uint8Array => {
    if (chunk === null) {
      throw new ProtocolError(`the reader left before it said ${wanted(expected)}`);
    }
    // A copy: the view is gone with the next read, and lines may be left in it.
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
    if (expected.hello) greeting.name = parseHello(await next());
    if (expected.resume === "no") return greeting;
    if (expected.resume === "perhaps") {
      let line = lines.next();
      if (line === undefined) {
        greeting.reading = Promise.resolve(connection.read(DEFAULT_READ_SIZE));
        const first = await Promise.race([greeting.reading, after(CHANCE_MS)]);
        // It says nothing, or something else, or no more: what a plain reader may do.
        if (first === undefined || first === null || !asks(first)) return greeting;
        delete greeting.reading;
        lines.push(take(first));
        line = await next();
      }
      greeting.asks = true;
      return withPlace(greeting, line);
    }
    return withPlace(greeting, await next());
  } finally {
    for (const timer of timers) clearTimeout(timer);
  }
}

function withPlace(greeting: Greeting, line: string): Greeting {
  const place = parseResume(line);
  return place === undefined ? greeting : { ...greeting, place };
}

/** Whether this can be the beginning of the reader's question. */
function asks(chunk: Uint8Array): boolean {
  const question = "resume ";
  const begun = new TextDecoder("latin1").decode(chunk.subarray(0, question.length));
  return begun !== "" && question.startsWith(begun);
}

const wanted = ({ hello, resume }: Expected): string =>
  hello && resume === "yes" ? "its name and its offset" : hello ? "its name" : "its offset";
