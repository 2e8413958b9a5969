/** What is appended to a file, also if it is not there yet, or is replaced by another one. */
import { closeSync, fstatSync, openSync, readSync, statSync } from "node:fs";

const BUFFER = 1 << 18;

export class FileTail {
  readonly #path: string;
  #fd: number | undefined;
  #offset = 0;
  readonly #buffer = new Uint8Array(BUFFER);

  constructor(path: string) {
    this.#path = path;
  }

  /** What is in the file now does not count. Throws an Error where it cannot be read. */
  skip(): void {
    this.close();
    if (this.#open()) this.#offset = fstatSync(this.#fd!).size;
  }

  /** Calls `take` with what has been appended; the bytes are valid during the call. */
  read(take: (bytes: Uint8Array) => void): void {
    if (this.#fd === undefined && !this.#open()) return;
    if (fstatSync(this.#fd!).size < this.#offset) this.#offset = 0;
    if (this.#take(take) > 0) return;
    // A log may have been rotated.
    const now = statSync(this.#path, { throwIfNoEntry: false });
    if (now === undefined || now.ino === fstatSync(this.#fd!).ino) return;
    this.close();
    if (this.#open()) this.#take(take);
  }

  close(): void {
    if (this.#fd !== undefined) closeSync(this.#fd);
    this.#fd = undefined;
    this.#offset = 0;
  }

  #take(take: (bytes: Uint8Array) => void): number {
    let all = 0;
    while (true) {
      const length = readSync(this.#fd!, this.#buffer, 0, BUFFER, this.#offset);
      if (length === 0) return all;
      this.#offset += length;
      all += length;
      take(this.#buffer.subarray(0, length));
    }
  }

  /** False: there is no such file. */
  #open(): boolean {
    try {
      this.#fd = openSync(this.#path, "r");
      return true;
    } catch (error) {
      if ((error as Error & { code?: string }).code === "ENOENT") return false;
      throw error;
    }
  }
}
