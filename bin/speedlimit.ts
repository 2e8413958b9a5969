/**
 * All commands as one program.
 *
 *     npx speedlimit limit -- python3 my_reader.py {host} {port}
 *     bun run bin/speedlimit.ts serve --rate 20MB/s
 */
import manifest from "../package.json" with { type: "json" };
import {
  choice,
  flag,
  listed,
  option,
  parseCommandLine,
  UsageError,
} from "../src/cli/command_line.ts";
import { COMMAND_NAMES, COMMANDS } from "../src/cli/commands.ts";
import { printLine, runMain } from "../src/cli/program.ts";

const command = choice({ help: "", choices: COMMAND_NAMES });
const width = Math.max(...COMMAND_NAMES.map((name) => name.length));

const spec = {
  name: "speedlimit",
  summary: "How fast can this TCP reader go, and what happens when it can't?\n\n" +
    COMMAND_NAMES.map((name) => `  ${name.padEnd(width)}  ${COMMANDS[name].summary}`).join("\n"),
  usage: [
    "speedlimit limit [OPTIONS] -- python3 my_reader.py {host} {port}",
    "speedlimit COMMAND [OPTIONS]",
    "speedlimit COMMAND --help",
  ],
  positionals: {
    command: option({
      value: "COMMAND",
      help: listed(COMMAND_NAMES),
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
    throw new UsageError(`no command: must be ${listed(COMMAND_NAMES)}`);
  }
  if (own.length > 1) {
    throw new UsageError(`options must come after the command: ${name} ${own[0]}`);
  }
  return await COMMANDS[name].main(args.slice(1), `speedlimit ${name}`);
}

if (import.meta.main) await runMain("speedlimit", main);
