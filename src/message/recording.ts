/** A file of recorded messages that is sent again and again. */
import { readFileSync, statSync } from "node:fs";
import { formatBytes, formatCount } from "../text/units.ts";
import { createFramer, formatFrame } from "./frame.ts";
import type { Frame } from "./framer.ts";
import { Layout } from "./layout.ts";
import { RepeatedBytes } from "./message.ts";

/** A recording is kept in memory. Bytes. */
export const LONGEST_RECORDING = 2 ** 30;

/** Nothing can be replayed from this file. The message is one line. */
export class RecordingError extends Error {
  override name = "RecordingError";
}

export interface Recording {
  message: RepeatedBytes;
  /** Messages until it begins again; with `none` there are only bytes. */
  messages: number;
  /** Bytes at the end of the file that are no whole message: they are not sent. */
  incomplete: number;
}

/** Reads a recording. Throws a RecordingError. */
export function readRecording(path: string, frame: Frame): Recording {
  const recording = parseRecording(readWhole(path), frame);
  if (recording !== undefined) return recording;
  throw new RecordingError(
    `${path} has no whole message with frame ${formatFrame(frame)}: nothing can be replayed`,
  );
}

function readWhole(path: string): Uint8Array {
  try {
    const { size } = statSync(path);
    if (size <= LONGEST_RECORDING) return readFileSync(path);
    throw new RecordingError(
      `${path} has ${formatBytes(size)}: at most ${formatBytes(LONGEST_RECORDING)} can be replayed`,
    );
  } catch (error) {
    if (error instanceof RecordingError) throw error;
    throw new RecordingError(`cannot read ${path}: ${(error as Error).message}`);
  }
}

/** Messages of a recording in memory. Undefined: it has no whole one. */
export function parseRecording(bytes: Uint8Array, frame: Frame): Recording | undefined {
  // Without messages each byte is one: any number of bytes can be due.
  const size = frame.kind === "fixed" ? frame.size : frame.kind === "none" ? 1 : undefined;
  const layout = size === undefined ? findMessages(bytes, frame) : undefined;
  const end = size === undefined ? layout?.lap ?? 0 : bytes.length - bytes.length % size;
  if (end === 0) return undefined;
  return {
    message: new RepeatedBytes(bytes.subarray(0, end), layout ?? Layout.equal(size!), frame),
    messages: layout?.count ?? end / size!,
    incomplete: bytes.length - end,
  };
}

/** Undefined: there is no whole message. */
function findMessages(bytes: Uint8Array, frame: Frame): Layout | undefined {
  const framer = createFramer(frame);
  let starts = new Float64Array(1024);
  let count = 0;
  let at = 0;
  while (true) {
    const length = framer.lengthOf(bytes.subarray(at));
    if (length === undefined) break;
    at += length;
    if (++count === starts.length) {
      const longer = new Float64Array(2 * count);
      longer.set(starts);
      starts = longer;
    }
    starts[count] = at;
  }
  return count === 0 ? undefined : new Layout(starts.slice(0, count + 1));
}

/** What is replayed, in a line. */
export function describeRecording(
  path: string,
  { message, messages, incomplete }: Recording,
): string {
  const { frame, size } = message;
  const what = frame.kind === "none"
    ? formatBytes(messages)
    : `${formatCount(messages)} messages of ${formatBytes(Math.round(size))} on average`;
  const rest = incomplete === 0
    ? ""
    : `; its last ${formatBytes(incomplete)} are no whole message and are not sent`;
  return `replaying ${path}: ${what}${rest}`;
}
