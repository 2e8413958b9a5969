/**
 * The libc calls that no runtime offers, through the foreign function interface (FFI) of each
 * runtime: socket options, non-blocking send and recv, netlink sockets, and reading /proc. On Linux on x86-64 and
 * arm64 only, and on Node only with `--experimental-ffi`; elsewhere `libc` is the reason why not.
 */
import process from "node:process";
import { runtime } from "./runtime.ts";

/** Lengths and results are plain numbers; -1 is failure. FFI loses errno, so it is not available. */
export interface Libc {
  socket(domain: number, type: number, protocol: number): number;
  connect(fd: number, address: Uint8Array, length: number): number;
  getsockname(fd: number, address: Uint8Array, length: Uint8Array): number;
  getpeername(fd: number, address: Uint8Array, length: Uint8Array): number;
  send(fd: number, bytes: Uint8Array, length: number, flags: number): number;
  recv(fd: number, bytes: Uint8Array, length: number, flags: number): number;
  getsockopt(
    fd: number,
    level: number,
    name: number,
    value: Uint8Array,
    length: Uint8Array,
  ): number;
  setsockopt(fd: number, level: number, name: number, value: Uint8Array, length: number): number;
  ioctl(fd: number, request: number, value: Uint8Array): number;
  /** The path ends with a zero byte. */
  open(path: Uint8Array, flags: number): number;
  close(fd: number): number;
  pread(fd: number, bytes: Uint8Array, length: number, offset: number): number;
  readlink(path: Uint8Array, bytes: Uint8Array, length: number): number;
  /** syscall(2) with the number of getdents64, which differs by architecture. */
  getdents(number: number, fd: number, bytes: Uint8Array, length: number): number;
}

// Parameter types by their names in Deno.dlopen; the other two runtimes' tables are derived from it.
const SIGNATURES = {
  socket: ["i32", "i32", "i32"],
  connect: ["i32", "buffer", "u32"],
  getsockname: ["i32", "buffer", "buffer"],
  getpeername: ["i32", "buffer", "buffer"],
  send: ["i32", "buffer", "u64", "i32"],
  recv: ["i32", "buffer", "u64", "i32"],
  getsockopt: ["i32", "i32", "i32", "buffer", "buffer"],
  setsockopt: ["i32", "i32", "i32", "buffer", "u32"],
  ioctl: ["i32", "u64", "buffer"],
  open: ["buffer", "i32"],
  close: ["i32"],
  pread: ["i32", "buffer", "u64", "i64"],
  readlink: ["buffer", "buffer", "u64"],
  syscall: ["i64", "i32", "buffer", "u64"],
} as const;

/** Those whose result is a `long`. */
const LONG_RESULTS: readonly string[] = ["send", "recv", "pread", "readlink", "syscall"];

type Name = keyof typeof SIGNATURES;
type Native = (...args: unknown[]) => number | bigint;
type Natives = Record<Name, Native>;

/** The calls, or one line that says why they are not available. Loaded once. */
export const libc: Libc | string = await openLibc();

async function openLibc(): Promise<Libc | string> {
  if (process.platform !== "linux") {
    return `libc is called on Linux only, not on ${process.platform}`;
  }
  if (process.arch !== "x64" && process.arch !== "arm64") {
    return `libc is called on x64 and arm64 only, not on ${process.arch}`;
  }
  try {
    switch (runtime) {
      case "deno":
        return wrap(openDeno(), BigInt);
      case "bun":
        return wrap(await openBun(), Number);
      case "node":
        return wrap(openNode(), BigInt);
    }
  } catch (error) {
    return `libc cannot be called: ${(error as Error).message.split("\n")[0]}`;
  }
}

/** `u64` converts lengths and offsets to the type that the runtime's FFI takes for 64-bit integers. */
function wrap(c: Natives, u64: (n: number) => number | bigint): Libc {
  return {
    socket: (domain, type, protocol) => Number(c.socket(domain, type, protocol)),
    connect: (fd, address, length) => Number(c.connect(fd, address, length)),
    getsockname: (fd, address, length) => Number(c.getsockname(fd, address, length)),
    getpeername: (fd, address, length) => Number(c.getpeername(fd, address, length)),
    send: (fd, bytes, length, flags) => Number(c.send(fd, bytes, u64(length), flags)),
    recv: (fd, bytes, length, flags) => Number(c.recv(fd, bytes, u64(length), flags)),
    getsockopt: (fd, level, name, value, length) =>
      Number(c.getsockopt(fd, level, name, value, length)),
    setsockopt: (fd, level, name, value, length) =>
      Number(c.setsockopt(fd, level, name, value, length)),
    ioctl: (fd, request, value) => Number(c.ioctl(fd, u64(request), value)),
    open: (path, flags) => Number(c.open(path, flags)),
    close: (fd) => Number(c.close(fd)),
    pread: (fd, bytes, length, offset) => Number(c.pread(fd, bytes, u64(length), u64(offset))),
    readlink: (path, bytes, length) => Number(c.readlink(path, bytes, u64(length))),
    getdents: (number, fd, bytes, length) => Number(c.syscall(u64(number), fd, bytes, u64(length))),
  };
}

function eachSignature<T>(make: (parameters: readonly string[], result: string) => T) {
  return Object.fromEntries(
    Object.entries(SIGNATURES).map(([name, parameters]) => [
      name,
      make(parameters, LONG_RESULTS.includes(name) ? "i64" : "i32"),
    ]),
  );
}

function openDeno(): Natives {
  const deno = (globalThis as unknown as {
    Deno: { dlopen(path: string, symbols: unknown): { symbols: Natives } };
  }).Deno;
  return deno.dlopen("libc.so.6", eachSignature((parameters, result) => ({ parameters, result })))
    .symbols;
}

async function openBun(): Promise<Natives> {
  // The name is in a variable so that type checkers and bundlers do not try to resolve the module.
  const name = "bun:ffi";
  const ffi = await import(name) as {
    dlopen(path: string, symbols: unknown): { symbols: Natives };
  };
  const bunNames: Record<string, string> = { buffer: "ptr", i64: "i64_fast", u64: "u64_fast" };
  const bunType = (type: string) => bunNames[type] ?? type;
  return ffi.dlopen(
    "libc.so.6",
    eachSignature((args, returns) => ({ args: args.map(bunType), returns: bunType(returns) })),
  ).symbols;
}

function openNode(): Natives {
  const ffi = process.getBuiltinModule?.("node:ffi" as "node:fs") as unknown as {
    dlopen(path: string, symbols: unknown): { functions: Natives };
  } | undefined;
  if (ffi === undefined) {
    throw new Error("Node needs version 26.1 or newer and --experimental-ffi");
  }
  return ffi.dlopen(
    "libc.so.6",
    eachSignature((parameters, result) => ({ arguments: parameters, return: result })),
  ).functions;
}
