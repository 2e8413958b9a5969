/**
 * Files and folders of /proc: through libc where it can be called, else through node:fs. Deno lets
 * node:fs read /proc only with --allow-all. A file stays open and is read again from its beginning:
 * 1 to 5 µs, where opening and reading it takes 12 to 60 µs.
 */
import { closeSync, openSync, readdirSync, readFileSync, readlinkSync, readSync } from "node:fs";
import process from "node:process";
import { type Libc, libc } from "./libc.ts";

const O_RDONLY_CLOEXEC = 0o2000000;
/** From asm/unistd.h; glibc has a function for it only since 2.30. */
const SYS_GETDENTS64 = process.arch === "arm64" ? 61 : 217;
/** In `struct linux_dirent64`: length of the record, and where its name begins. */
const D_RECLEN = 16;
const D_NAME = 19;

const bytes = new Uint8Array(65_536);
const view = new DataView(bytes.buffer);
const encoder = new TextEncoder();
const decoder = new TextDecoder();

/** Absent files and refused ones are alike: each function answers undefined, or nothing. */
interface ProcFiles {
  open(path: string): number | undefined;
  close(fd: number): void;
  /** Reads from the beginning into `target`; how many bytes, undefined where the process is gone. */
  readAgain(fd: number, target: Uint8Array): number | undefined;
  /** Names in a folder; none where it is not there or not permitted. */
  list(path: string): string[];
  /** What a symbolic link says. */
  link(path: string): string | undefined;
  read(path: string): string | undefined;
}

const cString = (text: string) => encoder.encode(`${text}\0`);

function fromLibc(c: Libc): ProcFiles {
  const open = (path: string) => {
    const fd = c.open(cString(path), O_RDONLY_CLOEXEC);
    return fd < 0 ? undefined : fd;
  };
  return {
    open,
    close: (fd) => void c.close(fd),
    readAgain(fd, target) {
      const length = c.pread(fd, target, target.length, 0);
      return length < 0 ? undefined : length;
    },
    list(path) {
      const names: string[] = [];
      const fd = open(path);
      if (fd === undefined) return names;
      for (let length; (length = c.getdents(SYS_GETDENTS64, fd, bytes, bytes.length)) > 0;) {
        for (let at = 0; at < length;) {
          const size = view.getUint16(at + D_RECLEN, true);
          const name = bytes.subarray(at + D_NAME, bytes.indexOf(0, at + D_NAME));
          // All but "." and "..".
          if (name[0] !== 46) names.push(decoder.decode(name));
          at += size;
        }
      }
      c.close(fd);
      return names;
    },
    link(path) {
      const length = c.readlink(cString(path), bytes, bytes.length);
      return length < 0 ? undefined : decoder.decode(bytes.subarray(0, length));
    },
    read(path) {
      const fd = open(path);
      if (fd === undefined) return undefined;
      // We read no file of /proc that is longer than this.
      const length = c.pread(fd, bytes, bytes.length, 0);
      c.close(fd);
      return length < 0 ? undefined : decoder.decode(bytes.subarray(0, length));
    },
  };
}

/** The value, or undefined where the call throws. */
function attempt<T>(call: () => T): T | undefined {
  try {
    return call();
  } catch {
    return undefined;
  }
}

const fromNode: ProcFiles = {
  open: (path) => attempt(() => openSync(path, "r")),
  close: (fd) => void attempt(() => closeSync(fd)),
  readAgain: (fd, target) => attempt(() => readSync(fd, target, 0, target.length, 0)),
  list: (path) => attempt(() => readdirSync(path)) ?? [],
  link: (path) => attempt(() => readlinkSync(path)),
  read: (path) => attempt(() => readFileSync(path, "latin1")),
};

export const procFiles: ProcFiles = typeof libc === "string" ? fromNode : fromLibc(libc);
