/** What bench/article.ts writes, and its tables. */
import { median } from "../src/measure/statistics.ts";
import type { Machine } from "../src/report/machine.ts";
import { formatBytes, formatSeconds } from "../src/text/units.ts";

/** What a reader's calls return after its server has closed the connection. */
export interface ErrorCase {
  /** What the server does. */
  server: string;
  /** Pairs of a call and its outcome. */
  calls: [string, string][];
  /** From the close on. Absent where packets cannot be seen. */
  segments?: string[];
}

/** How long a reader that is too slow stays connected. */
export interface BufferRow {
  /** SO_SNDBUF of the server and SO_RCVBUF of the reader, as set; null: the kernel tunes it. Bytes. */
  sendBuffer: number | null;
  receiveBuffer: number | null;
  /** From the connection to its end, seconds: the runs. */
  seconds: number[];
  /** What the server's kernel had accepted by then, bytes. */
  sent: number[];
}

export interface ArticleResult {
  schema: "speedlimit/article@1";
  environment: Machine;
  errors: ErrorCase[];
  /** Bytes a second: what was sent. */
  rate: number;
  buffers: BufferRow[];
  /** net.core.wmem_max and rmem_max, the largest sizes that tcp_wmem and tcp_rmem allow; bytes. */
  largest: { wmemMax: number; rmemMax: number; tcpWmem: number; tcpRmem: number };
}

export const ERROR_HEAD: readonly string[] = [
  "the server",
  "the reader calls, one after the other",
  "segments",
];

export function formatErrorCase({ server, calls, segments }: ErrorCase): string[] {
  return [
    server,
    calls.map(([call, outcome]) => `${call}: ${outcome}`).join("; "),
    segments?.join("; ") ?? "not seen",
  ];
}

export const BUFFER_HEAD: readonly string[] = [
  "SO_SNDBUF of the server",
  "SO_RCVBUF of the reader",
  "sent before it was disconnected",
  "disconnected after",
];

export function formatBufferRow({ sendBuffer, receiveBuffer, seconds, sent }: BufferRow): string[] {
  const size = (bytes: number | null) => bytes === null ? "not set" : formatBytes(bytes);
  return [
    size(sendBuffer),
    size(receiveBuffer),
    formatBytes(median(sent)),
    formatSeconds(median(seconds)),
  ];
}
