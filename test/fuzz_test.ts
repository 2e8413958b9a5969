/** Random input for the parsers of what comes from outside: only clear errors. */
import { describe, test } from "node:test";
import { Fuzz, PARSERS } from "../bench/fuzzing.ts";
import { randomFrom } from "../bench/random.ts";

/** For each parser: some 20,000 in all. */
const INPUTS = 3500;

describe("random input", () => {
  for (const [name, parse] of Object.entries(PARSERS)) {
    test(name, () => {
      for (let seed = 1; seed <= INPUTS; seed++) {
        try {
          parse(new Fuzz(randomFrom(seed)));
        } catch (error) {
          throw new Error(`seed ${seed}: ${(error as Error).message}`, { cause: error });
        }
      }
    });
  }
});
