/** Figures of a server that runs with `--metrics 0`. */
import type { ServerRun } from "./spill_server.ts";

/** Where its metrics are. */
export async function metricsOf(server: ServerRun): Promise<string> {
  const [, port] = await server.program.saw(/"event":"metrics".*"port":(\d+)/);
  return `http://127.0.0.1:${port}/metrics`;
}

/** A metric of the only reader; 0 while no reader has come. */
export async function figure(url: string, name: string): Promise<number> {
  const text = await (await fetch(url)).text();
  return Number(new RegExp(`^${name}\\{[^}]*\\} (\\S+)$`, "m").exec(text)?.[1] ?? 0);
}
