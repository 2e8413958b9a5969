/**
 * All commands as one program.
 *
 *     npx speedlimit limit -- python3 my_reader.py {host} {port}
 *     bun run bin/speedlimit.ts serve --rate 20MB/s
 */
import { main as limit } from "../src/cli/limit.ts";
import { main as report } from "../src/cli/report.ts";
import { main as client } from "../src/cli/client.ts";
import manifest from "../package.json" with { type: "json" };
import { main as serve } from "../src/cli/server.ts";
import { choice, flag, option, parseCommandLine, UsageError } from "../src/cli/command_line.ts";
import { print, runMain } from "../src/cli/program.ts";
import { main as queue } from "../src/cli/queue.ts";

const COMMANDS = { limit, report, serve, client, queue };
const command = choice({ help: "", choices: ["limit", "report", "serve", "client", "queue"] });

const spec = {
  name: "speedlimit",
  summary: "How fast can this TCP reader go, and what happens when it can't?\n\n" +
    "  limit   finds the speed limit of any reader: the highest rate at which it keeps up\n" +
    "  report  shows what limit --json printed: as text, as a page, or against older results\n" +
    "  serve   the flood server: sends messages to every reader at a fixed rate\n" +
    "  client  the drain client: reads from a TCP server, and tells how fast and how it ended\n" +
    "  queue   looks into the durable queue of serve --overflow spill, and repairs it",
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
  options: { version: flag("print the version") },
};

/** The program; its exit status. Throws a UsageError, or what the command throws. */
export async function main(args: readonly string[]): Promise<number> {
  // What follows the command is the command's.
  const own = args[0]?.startsWith("-") ? args : args.slice(0, 1);
  const { options, positionals } = parseCommandLine(spec, own);
  if (options.version) {
    print(manifest.version);
    return 0;
  }
  const name = positionals.command;
  if (name === undefined) {
    throw new UsageError("no command: must be limit, report, serve, client or queue");
  }
  if (own.length > 1) throw new UsageError(`options come after the command: ${name} ${own[0]}`);
  return await COMMANDS[name](args.slice(1), `speedlimit ${name}`);
}

if (import.meta.main) await runMain("speedlimit", main);
