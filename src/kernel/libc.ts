/**
 * The libc calls that no runtime offers, through the foreign function interface (FFI) of each
 * runtime: socket options, non-blocking send and recv, netlink sockets, sockets to try them on, and
 * reading /proc. On Linux on x86-64 and arm64 only, and on Node only with `--experimental-ffi`;
 * elsewhere `libc` is the reason why not.
 */
import process from "node:process";
import { runtime } from "./runtime.ts";

/** Bytes, or on Node their address: that spares a call half of its cost. */
export type Memory = Uint8Array | bigint;

/** Lengths and results are plain numbers; -1 is failure. FFI loses errno, so it is not available. */
export interface Libc {
  /**
   * The form of a buffer that costs least in calls that are made again and again with it. The caller
   * keeps `bytes`, which must have an ArrayBuffer of their own: V8 moves the content of others.
   */
  pin(bytes: Uint8Array<ArrayBuffer>): Memory;
  socket(domain: number, type: number, protocol: number): number;
  close(fd: number): number;
  bind(fd: number, address: Uint8Array, length: number): number;
  listen(fd: number, backlog: number): number;
  accept(fd: number, address: Uint8Array, length: Uint8Array): number;
  connect(fd: number, address: Uint8Array, length: number): number;
  getsockname(fd: number, address: Uint8Array, length: Uint8Array): number;
  getpeername(fd: number, address: Uint8Array, length: Uint8Array): number;
  /** As send and recv without flags, of at most 2 GiB: on Node a call with four arguments costs 0.3 µs more. */
  read(fd: number, bytes: Memory, length: number): number;
  write(fd: number, bytes: Memory, length: number): number;
  send(fd: number, bytes: Uint8Array, length: number, flags: number): number;
  recv(fd: number, bytes: Uint8Array, length: number, flags: number): number;
  getsockopt(
    fd: number,
    level: number,
    name: number,
    value: Memory,
    length: Memory,
  ): number;
  setsockopt(fd: number, level: number, name: number, value: Uint8Array, length: number): number;
  ioctl(fd: number, request: number, value: Memory): number;
  /** The number of a network interface, 0 if no interface has that name; the name ends with a NUL. */
  if_nametoindex(name: Uint8Array): number;
  /** Writes the name of an interface into 16 bytes, with a NUL at its end; nothing where it fails. */
  if_indextoname(index: number, name: Uint8Array): void;
  getrlimit(resource: number, limits: Uint8Array): number;
  /** The path ends with a zero byte. */
  open(path: Uint8Array, flags: number): number;
  pread(fd: number, bytes: Uint8Array, length: number, offset: number): number;
  readlink(path: Uint8Array, bytes: Uint8Array, length: number): number;
  /** syscall(2) with the number of getdents64, which differs by architecture. */
  getdents(number: number, fd: number, bytes: Uint8Array, length: number): number;
  /** Ends this process at once. */
  _exit(status: number): void;
}

// Parameter types by their names in Deno.dlopen; the other two runtimes' tables are derived from it.
const SIGNATURES = {
  socket: ["i32", "i32", "i32"],
  close: ["i32"],
  bind: ["i32", "buffer", "u32"],
  listen: ["i32", "i32"],
  accept: ["i32", "buffer", "buffer"],
  connect: ["i32", "buffer", "u32"],
  getsockname: ["i32", "buffer", "buffer"],
  getpeername: ["i32", "buffer", "buffer"],
  read: ["i32", "buffer", "u64"],
  write: ["i32", "buffer", "u64"],
  send: ["i32", "buffer", "u64", "i32"],
  recv: ["i32", "buffer", "u64", "i32"],
  getsockopt: ["i32", "i32", "i32", "buffer", "buffer"],
  setsockopt: ["i32", "i32", "i32", "buffer", "u32"],
  ioctl: ["i32", "u64", "buffer"],
  if_nametoindex: ["buffer"],
  if_indextoname: ["u32", "buffer"],
  getrlimit: ["i32", "buffer"],
  open: ["buffer", "i32"],
  pread: ["i32", "buffer", "u64", "i64"],
  readlink: ["buffer", "buffer", "u64"],
  syscall: ["i64", "i32", "buffer", "u64"],
  _exit: ["i32"],
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
        return wrap(openDeno(), bigInt, (bytes) => bytes);
      case "bun":
        return wrap(await openBun(), Number, (bytes) => bytes);
      case "node": {
        const { natives, pin } = openNode();
        return wrap(natives, bigInt, pin);
      }
    }
  } catch (error) {
    return `libc cannot be called: ${(error as Error).message.split("\n")[0]}`;
  }
}

let lastNumber = 0;
let lastBigInt = 0n;

/** BigInt(n), which allocates only when `n` is another than the last one. */
function bigInt(n: number): bigint {
  if (n !== lastNumber) {
    lastBigInt = BigInt(n);
    lastNumber = n;
  }
  return lastBigInt;
}

/** `u64` converts lengths and offsets to the type that the runtime's FFI takes for 64-bit integers. */
function wrap(c: Natives, u64: (n: number) => number | bigint, pin: Libc["pin"]): Libc {
  return {
    pin,
    socket: (domain, type, protocol) => Number(c.socket(domain, type, protocol)),
    close: (fd) => Number(c.close(fd)),
    bind: (fd, address, length) => Number(c.bind(fd, address, length)),
    listen: (fd, backlog) => Number(c.listen(fd, backlog)),
    accept: (fd, address, length) => Number(c.accept(fd, address, length)),
    connect: (fd, address, length) => Number(c.connect(fd, address, length)),
    getsockname: (fd, address, length) => Number(c.getsockname(fd, address, length)),
    getpeername: (fd, address, length) => Number(c.getpeername(fd, address, length)),
    read: (fd, bytes, length) => Number(c.read(fd, bytes, u64(length))),
    write: (fd, bytes, length) => Number(c.write(fd, bytes, u64(length))),
    send: (fd, bytes, length, flags) => Number(c.send(fd, bytes, u64(length), flags)),
    recv: (fd, bytes, length, flags) => Number(c.recv(fd, bytes, u64(length), flags)),
    getsockopt: (fd, level, name, value, length) =>
      Number(c.getsockopt(fd, level, name, value, length)),
    setsockopt: (fd, level, name, value, length) =>
      Number(c.setsockopt(fd, level, name, value, length)),
    ioctl: (fd, request, value) => Number(c.ioctl(fd, u64(request), value)),
    if_nametoindex: (name) => Number(c.if_nametoindex(name)),
    // Its result is a pointer, whatever we take it for.
    if_indextoname: (index, name) => void c.if_indextoname(index, name),
    getrlimit: (resource, limits) => Number(c.getrlimit(resource, limits)),
    open: (path, flags) => Number(c.open(path, flags)),
    pread: (fd, bytes, length, offset) => Number(c.pread(fd, bytes, u64(length), u64(offset))),
    readlink: (path, bytes, length) => Number(c.readlink(path, bytes, u64(length))),
    getdents: (number, fd, bytes, length) => Number(c.syscall(u64(number), fd, bytes, u64(length))),
    _exit: (status) => void c._exit(status),
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

function openNode(): { natives: Natives; pin: Libc["pin"] } {
  const ffi = process.getBuiltinModule?.("node:ffi" as "node:fs") as unknown as {
    dlopen(path: string, symbols: unknown): { functions: Natives };
    getRawPointer(bytes: Uint8Array): bigint;
  } | undefined;
  if (ffi === undefined) {
    throw new Error("Node needs version 26.1 or newer and --experimental-ffi");
  }
  const { functions } = ffi.dlopen(
    "libc.so.6",
    eachSignature((parameters, result) => ({ arguments: parameters, return: result })),
  );
  return { natives: functions, pin: (bytes) => ffi.getRawPointer(bytes) };
}
