/**
 * A pool of buffers that are transferred to the queue's worker thread with a batch and come back for
 * reuse: without it the garbage of 1 GB/s grows to hundreds of MB.
 */

/** Smallest size of a buffer: a batch, and room for the page links read with it (sqlite_pages.ts). */
const STANDARD_SIZE = (1 << 20) + 4096;
/** Largest buffer that is kept for reuse: longer ones are rare. */
const MOST_KEPT = 2 << 20;
const MOST_SPARE = 32;

const spare: ArrayBuffer[] = [];
const lent: WeakSet<ArrayBufferLike> = new WeakSet();

/**
 * A view of `length` bytes to fill, with any content. `append` transfers it without a copy, even if
 * its buffer is longer.
 */
export function takeBuffer(length: number): Uint8Array<ArrayBuffer> {
  const last = spare.at(-1);
  const buffer = last !== undefined && last.byteLength >= length
    ? spare.pop()!
    : new ArrayBuffer(Math.max(length, STANDARD_SIZE));
  lent.add(buffer);
  return new Uint8Array(buffer, 0, length);
}

/** A buffer from the pool, to transfer to the worker thread. */
export function spareBuffer(): ArrayBuffer | undefined {
  return spare.pop();
}

/** Puts buffers that are no longer used into the pool. */
export function returnBuffers(buffers: readonly ArrayBuffer[]): void {
  for (const buffer of buffers) {
    const reusable = buffer.byteLength >= STANDARD_SIZE && buffer.byteLength <= MOST_KEPT;
    if (reusable && spare.length < MOST_SPARE) spare.push(buffer);
  }
}

/**
 * The bytes in a buffer that may be transferred: the same buffer if they fill it or if it comes from
 * `takeBuffer`, else a copy.
 */
export function transferableBytes(bytes: Uint8Array): Uint8Array<ArrayBuffer> {
  const { buffer } = bytes;
  const whole = bytes.byteLength === buffer.byteLength || lent.has(buffer);
  if (whole && buffer instanceof ArrayBuffer) return bytes as Uint8Array<ArrayBuffer>;
  const copy = takeBuffer(bytes.length);
  copy.set(bytes);
  return copy;
}

/**
 * Bytes as they are posted between threads. Not a Uint8Array: Deno 2.9.6 searches each of its bytes
 * for a MessagePort (denoland/deno#23871), which takes 50 ms per MiB.
 */
export interface PostedBytes {
  buffer: ArrayBuffer;
  from: number;
  length: number;
}

export function toPosted(
  { buffer, byteOffset: from, length }: Uint8Array<ArrayBuffer>,
): PostedBytes {
  return { buffer, from, length };
}

export function fromPosted({ buffer, from, length }: PostedBytes): Uint8Array<ArrayBuffer> {
  return new Uint8Array(buffer, from, length);
}
