/**
 * Gives millions of random inputs to the parsers of what comes from outside.
 *
 *     npx node --no-warnings bench/fuzz.ts --inputs 1000000
 */
import { option, parseCommandLine } from "../src/cli/command_line.ts";
import { printLine, runMain } from "../src/cli/program.ts";
import { parseCount } from "../src/text/units.ts";
import { Fuzz, PARSERS } from "./fuzzing.ts";
import { randomFrom } from "./random.ts";

const spec = {
  name: "fuzz",
  summary: "Gives random input to the parsers of protocol lines, frames, messages, segment\n" +
    "headers and options. Exits with 1 at the first error that is not clear.",
  usage: ["fuzz.ts [OPTIONS]"],
  options: {
    inputs: option({
      value: "N",
      help: "number of inputs, of all parsers together",
      default: "1000000",
      parse: (text) => parseCount(text, { most: 1e10 }),
    }),
    seed: option({
      value: "N",
      help: "the first seed",
      default: "1",
      parse: (text) => parseCount(text, { most: 1e9 }),
    }),
  },
};

function main(args: readonly string[]): number {
  const { options } = parseCommandLine(spec, args);
  const parsers = Object.entries(PARSERS);
  const each = Math.ceil(options.inputs! / parsers.length);
  for (const [name, parse] of parsers) {
    for (let seed = options.seed!; seed < options.seed! + each; seed++) {
      try {
        parse(new Fuzz(randomFrom(seed)));
      } catch (error) {
        printLine(`${name}, seed ${seed}: ${(error as Error).stack}`);
        return 1;
      }
    }
    printLine(`${name}: ${each} inputs`);
  }
  return 0;
}

if (import.meta.main) await runMain("fuzz", main);
