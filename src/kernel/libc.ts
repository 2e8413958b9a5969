/**
 * The handful of libc calls that no runtime offers, through the FFI of each: getsockopt and
 * setsockopt on a descriptor, and a netlink socket. Linux on a 64-bit machine only; elsewhere,
 * and on a Node without `--experimental-ffi`, there is none and `openLibc` says so.
 */
import process from "node:process";
import { runtime } from "./runtime.ts";

/** Lengths and results are plain numbers; -1 is failure. errno is lost on the way through FFI. */
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
}

// The one signature table, in the words of Deno; the other two are derived from it.
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
} as const;

type Name = keyof typeof SIGNATURES;
type Native = (...args: unknown[]) => number | bigint;
type Natives = Record<Name, Native>;

/** libc, or the reason why it cannot be had. Asked once. */
export const libc: Libc | string = await openLibc();

async function openLibc(): Promise<Libc | string> {
  if (process.platform !== "linux") return `no kernel figures on ${process.platform}: Linux only`;
  if (process.arch !== "x64" && process.arch !== "arm64") {
    return `no kernel figures on ${process.arch}: 64-bit little-endian only`;
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
    return `no kernel figures: ${(error as Error).message.split("\n")[0]}`;
  }
}

/** Lengths cross as the 64-bit type that the runtime's FFI wants. */
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
  };
}

function eachSignature<T>(make: (parameters: readonly string[], result: string) => T) {
  return Object.fromEntries(
    Object.entries(SIGNATURES).map(([name, parameters]) => [
      name,
      make(parameters, name === "send" || name === "recv" ? "i64" : "i32"),
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
  // The name is a variable so that no type checker and no bundler looks for the module.
  const name = "bun:ffi";
  const ffi = await import(name) as {
    dlopen(path: string, symbols: unknown): { symbols: Natives };
  };
  const words: Record<string, string> = { buffer: "ptr", i64: "i64_fast", u64: "u64_fast" };
  const word = (type: string) => words[type] ?? type;
  return ffi.dlopen(
    "libc.so.6",
    eachSignature((args, returns) => ({ args: args.map(word), returns: word(returns) })),
  ).symbols;
}

function openNode(): Natives {
  const ffi = process.getBuiltinModule?.("node:ffi" as "node:fs") as unknown as {
    dlopen(path: string, symbols: unknown): { functions: Natives };
  } | undefined;
  if (ffi === undefined) {
    throw new Error("this Node has no node:ffi (26.1 or newer has it with --experimental-ffi)");
  }
  return ffi.dlopen(
    "libc.so.6",
    eachSignature((parameters, result) => ({ arguments: parameters, return: result })),
  ).functions;
}
