/** The commands: the one list from which the program `speedlimit`, its help and the bundles are made. */
import { main as client } from "./client.ts";
import { main as limit } from "./limit.ts";
import { main as map } from "./map.ts";
import { main as plan } from "./plan.ts";
import { main as queue } from "./queue.ts";
import { main as report } from "./report.ts";
import { main as serve } from "./server.ts";

export interface Command {
  /** Its file in this folder, without `.ts`; also the name of its bundle. */
  readonly file: string;
  /** One line for the help of `speedlimit`. */
  readonly summary: string;
  /** `called`: the name for its usage line. Resolves to its exit status; throws a UsageError. */
  readonly main: (args: readonly string[], called: string) => Promise<number>;
}

/** By name, in the order of the help. */
export const COMMANDS = {
  limit: {
    file: "limit",
    summary: "finds the highest rate at which a reader keeps up",
    main: limit,
  },
  map: {
    file: "map",
    summary: "measures which bursts a reader survives, at which base rates",
    main: map,
  },
  plan: {
    file: "plan",
    summary: "computes what a feed would do to a reader whose limit is known",
    main: plan,
  },
  report: {
    file: "report",
    summary: "shows results of limit --json as text or as a page, or compares them",
    main: report,
  },
  serve: {
    file: "server",
    summary: "the flood server: sends messages to every reader at a fixed rate",
    main: serve,
  },
  client: {
    file: "client",
    summary: "the drain client: reads from a TCP server, and reports how fast it was",
    main: client,
  },
  queue: {
    file: "queue",
    summary: "inspects and repairs the durable queue of serve --overflow spill",
    main: queue,
  },
} satisfies Record<string, Command>;

export type CommandName = keyof typeof COMMANDS;

export const COMMAND_NAMES = Object.keys(COMMANDS) as CommandName[];
