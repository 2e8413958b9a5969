/** What a result was measured on: machine, kernel settings, runtime. */
import { execFileSync } from "node:child_process";
import { readFileSync } from "node:fs";
import os from "node:os";
import process from "node:process";
import { type KernelSource, kernelSource } from "./kernel.ts";
import { runtime } from "./runtime.ts";

export interface Environment {
  /** ISO 8601, UTC. */
  date: string;
  cpu: string;
  cores: number;
  /** Bytes. */
  memory: number;
  /** Operating system and release: `Linux 6.18.44`. */
  kernel: string;
  /** net.ipv4.tcp_congestion_control. bbr paces packets, which affects results at low rates. */
  congestionControl?: string;
  /** net.ipv4.tcp_rmem: minimum, default, maximum; bytes. */
  tcpRmem?: number[];
  /** net.ipv4.tcp_wmem: minimum, default, maximum; bytes. */
  tcpWmem?: number[];
  /** The runtime of the server and of the drain client: `deno 2.9.6`. */
  runtime: string;
  /** Where the figures about connections came from. */
  kernelSource: KernelSource;
}

function runtimeVersion(): string {
  const { versions } = process as unknown as { versions: Record<string, string> };
  return versions[runtime] ?? process.version;
}

function sysctl(name: string): string | undefined {
  const file = `/proc/sys/net/ipv4/${name}`;
  try {
    return readFileSync(file, "utf8").trim();
  } catch {
    // Deno reads /proc only with --allow-all; with --allow-run, cat can read it instead.
  }
  try {
    return execFileSync("cat", [file], { encoding: "utf8", stdio: ["ignore", "pipe", "ignore"] })
      .trim();
  } catch {
    // Not Linux, or not permitted.
    return undefined;
  }
}

/** The machine, the kernel's TCP settings and the runtime. Settings that cannot be read are absent. */
export function environment(): Environment {
  const cpus = os.cpus();
  const result: Environment = {
    date: new Date().toISOString(),
    cpu: cpus[0]?.model.trim() ?? "unknown",
    cores: cpus.length,
    memory: os.totalmem(),
    kernel: `${os.type()} ${os.release()}`,
    runtime: `${runtime} ${runtimeVersion()}`,
    kernelSource,
  };
  const congestionControl = sysctl("tcp_congestion_control");
  if (congestionControl !== undefined) result.congestionControl = congestionControl;
  const numbers = (text: string | undefined) => text?.split(/\s+/).map(Number);
  const tcpRmem = numbers(sysctl("tcp_rmem"));
  if (tcpRmem !== undefined) result.tcpRmem = tcpRmem;
  const tcpWmem = numbers(sysctl("tcp_wmem"));
  if (tcpWmem !== undefined) result.tcpWmem = tcpWmem;
  return result;
}
