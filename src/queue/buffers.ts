/**
 * Buffers that go to the queue's thread with a batch and come back to be used again: without them
 * the garbage of 1 GB/s grows to hundreds of MB.
 */

/**
 * What one has at least, and what is kept at most: longer ones are rare. A batch, and room for what
 * stands between its pieces in the file: see sqlite_pages.ts.
 */
const USUAL = (1 << 20) + 4096;
const MOST_KEPT = 2 << 20;
const MOST_SPARE = 32;

const spare: ArrayBuffer[] = [];
const lent: WeakSet<ArrayBufferLike> = new WeakSet();

/** So many bytes to fill; `append` takes them over, whether or not they are all of their buffer. */
export function takeBuffer(length: number): Uint8Array<ArrayBuffer> {
  const last = spare.at(-1);
  const buffer = last !== undefined && last.byteLength >= length
    ? spare.pop()!
    : new ArrayBuffer(Math.max(length, USUAL));
  lent.add(buffer);
  return new Uint8Array(buffer, 0, length);
}

/** One that waits to be used again, to give away. */
export function spareBuffer(): ArrayBuffer | undefined {
  return spare.pop();
}

/** Takes back what is used no more. */
export function giveBuffers(buffers: readonly ArrayBuffer[]): void {
  for (const buffer of buffers) {
    const usual = buffer.byteLength >= USUAL && buffer.byteLength <= MOST_KEPT;
    if (usual && spare.length < MOST_SPARE) spare.push(buffer);
  }
}

/** The same bytes in a buffer that may be given away: itself, or a copy. */
export function ownBytes(bytes: Uint8Array): Uint8Array<ArrayBuffer> {
  const { buffer } = bytes;
  const whole = bytes.byteLength === buffer.byteLength || lent.has(buffer);
  if (whole && buffer instanceof ArrayBuffer) return bytes as Uint8Array<ArrayBuffer>;
  const copy = takeBuffer(bytes.length);
  copy.set(bytes);
  return copy;
}

/**
 * Bytes on their way between threads. Not a Uint8Array: Deno 2.9.6 looks at each of its bytes for a
 * MessagePort (denoland/deno#23871), which takes 50 ms a MiB.
 */
export interface SentBytes {
  buffer: ArrayBuffer;
  from: number;
  length: number;
}

export function toSent({ buffer, byteOffset: from, length }: Uint8Array<ArrayBuffer>): SentBytes {
  return { buffer, from, length };
}

export function fromSent({ buffer, from, length }: SentBytes): Uint8Array<ArrayBuffer> {
  return new Uint8Array(buffer, from, length);
}
