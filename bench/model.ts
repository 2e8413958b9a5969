/**
 * Compares a stream with its model for millions of random operations: append, deliver, acknowledge, leave,
 * return, spill, a full disk, kills at any step, restarts, upstreams that are replaced.
 *
 *     npx node --no-warnings bench/model.ts --steps 10000000
 */
import { option, parseCommandLine } from "../src/cli/command_line.ts";
import { printLine, runMain } from "../src/cli/program.ts";
import { ProgressLine } from "../src/text/progress.ts";
import { parseCount } from "../src/text/units.ts";
import { MODELS, runModel } from "./stream_model.ts";

/** Operations with one seed. */
const STEPS_EACH = 1500;

const spec = {
  name: "model",
  summary: "Compares the offsets of streams and their readers with a model, for millions of\n" +
    "random operations and kills. Exits with 1 at the first difference.",
  usage: ["model.ts [OPTIONS]"],
  options: {
    steps: option({
      value: "N",
      help: "number of operations",
      default: "10000000",
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

async function main(args: readonly string[]): Promise<number> {
  const { options } = parseCommandLine(spec, args);
  const progress = new ProgressLine();
  let done = 0;
  let kills = 0;
  for (let seed = options.seed!; done < options.steps!; seed++) {
    for (const [name, kind] of Object.entries(MODELS)) {
      try {
        kills += (await runModel({ seed, steps: STEPS_EACH, kills: 0.003, ...kind })).kills;
      } catch (error) {
        progress.end();
        printLine(`a stream ${name}, seed ${seed}: ${(error as Error).message}`);
        return 1;
      }
      done += STEPS_EACH;
    }
    progress.update(`${done} of ${options.steps} operations`);
  }
  progress.end();
  printLine(`${done} operations, ${kills} kills: no difference`);
  return 0;
}

if (import.meta.main) await runMain(spec.name, main);
