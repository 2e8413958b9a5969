/** Files of numbered messages, for bench/kill.ts. */
import { closeSync, openSync, readSync, statSync, writeSync } from "node:fs";
import { fillNumbered } from "../src/message/numbered.ts";

const PIECE = 1 << 20;

/** Writes a file of numbered messages, from 0 on. */
export function writeMessages(file: string, size: number, bytes: number): void {
  const fd = openSync(file, "w");
  try {
    const count = Math.floor(PIECE / size);
    const piece = new Uint8Array(count * size);
    for (let first = 0; first * size < bytes; first += count) {
      fillNumbered(piece, { first, count, size, plannedMs: Date.now(), everyMs: 0 });
      for (let done = 0; done < piece.length;) done += writeSync(fd, piece, done);
    }
  } finally {
    closeSync(fd);
  }
}

/** The number of the last whole message in a file; -1: none. */
export function lastNumber(file: string, size: number): number {
  const bytes = statSync(file, { throwIfNoEntry: false })?.size ?? 0;
  if (bytes < size) return -1;
  const head = new Uint8Array(8);
  const fd = openSync(file, "r");
  try {
    readSync(fd, head, 0, head.length, bytes - bytes % size - size);
  } finally {
    closeSync(fd);
  }
  return numberAt(head, 0);
}

/** The number of the message that begins there. */
export function numberAt(bytes: Uint8Array, at: number): number {
  const view = new DataView(bytes.buffer, bytes.byteOffset + at, 8);
  return view.getUint32(0) * 2 ** 32 + view.getUint32(4);
}
