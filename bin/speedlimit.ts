/**
 * All commands as one program.
 *
 *     npx speedlimit limit -- python3 my_reader.py {host} {port}
 *     bun run bin/speedlimit.ts serve --rate 20MB/s
 */
import manifest from "../package.json" with { type: "json" };
import { main as client } from "../src/cli/client.ts";
import { choice, flag, option, parseCommandLine, UsageError } from "../src/cli/command_line.ts";
import { main as limit } from "../src/cli/limit.ts";
import { printLine, runMain } from "../src/cli/program.ts";
import { main as queue } from "../src/cli/queue.ts";
import { main as report } from "../src/cli/report.ts";
import { main as serve } from "../src/cli/server.ts";

const COMMANDS = { limit, report, serve, client, queue };
const command = choice({ help: "", choices: ["limit", "report", "serve", "client", "queue"] });

const spec = {
  name: "speedlimit",
  summary: "How fast can this TCP reader go, and what happens when it can't?\n\n" +
    "  limit   finds the highest rate at which a reader keeps up\n" +
    "  report  shows results of limit --json as text or as a page, or compares them\n" +
    "  serve   the flood server: sends messages to every reader at a fixed rate\n" +
    "  client  the drain client: reads from a TCP server, and reports how fast it was\n" +
    "  queue   inspects and repairs the durable queue of serve --overflow spill",
  usage: [
    "speedlimit limit [OPTIONS] -- python3 my_reader.py {host} {port}",
    "speedlimit COMMAND [OPTIONS]",
    "speedlimit COMMAND --help",
  ],
  positionals: {
    command: option({
      value: "COMMAND",
      help: "limit, report, serve, client or queue",
      parse: command.parse,
    }),
  },
  options: { version: flag("prints the version") },
};

/** Runs the program and returns its exit status. Throws a UsageError, or what the command throws. */
export async function main(args: readonly string[]): Promise<number> {
  // Arguments after the command belong to the command.
  const own = args[0]?.startsWith("-") ? args : args.slice(0, 1);
  const { options, positionals } = parseCommandLine(spec, own);
  if (options.version) {
    printLine(manifest.version);
    return 0;
  }
  const name = positionals.command;
  if (name === undefined) {
    throw new UsageError("no command: must be limit, report, serve, client or queue");
  }
  if (own.length > 1) {
    throw new UsageError(`options must come after the command: ${name} ${own[0]}`);
  }
  return await COMMANDS[name](args.slice(1), `speedlimit ${name}`);
}

if (import.meta.main) await runMain("speedlimit", main);
