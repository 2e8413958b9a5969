/**
 * Mutants by name: those that no test noticed when the first version was changed by hand. They are
 * part of every run with `--named`, however the rest is drawn.
 */
import type { Mutant } from "./mutants.ts";

/** A change by its text. The first of several is taken whose `before` stands in its file once. */
interface NamedMutant {
  name: string;
  changes: readonly { file: string; before: string; after: string }[];
}

const NAMED: readonly NamedMutant[] = [
  {
    name: "the flood's bound is one message more",
    changes: [{
      file: "src/send/flood.ts",
      before: "this.#bound = Math.floor(bound / options.message.size);",
      after: "this.#bound = Math.floor(bound / options.message.size) + 1;",
    }],
  },
  {
    name: "a schedule does not end",
    changes: [{ file: "src/send/pacer.ts", before: "Math.min(nowMs, this.endMs)", after: "nowMs" }],
  },
  {
    name: "a reader collapses below a twentieth of its limit",
    changes: [{
      file: "src/measure/beyond.ts",
      before: "collapsed: drained < lower / 2",
      after: "collapsed: drained < lower / 20",
    }],
  },
  {
    name: "the sender is late after 2 s",
    changes: [{
      file: "src/measure/trial_watch.ts",
      before: "const ON_TIME = 0.003;",
      after: "const ON_TIME = 2;",
    }],
  },
  {
    name: "a gap does not end an acknowledging reader's connection",
    changes: [{
      file: "src/relay/delivery.ts",
      before: 'if (this.#ack === "reader") return true;',
      after: "if (false) return;",
    }],
  },
];

/** These mutants, as far as `--only` allows, and the names of those whose text is no longer there. */
export function namedMutants(
  read: (file: string) => string | undefined,
  isWanted: (file: string) => boolean,
): { mutants: Mutant[]; lost: string[] } {
  const mutants: Mutant[] = [];
  const lost: string[] = [];
  for (const { name, changes } of NAMED) {
    const wanted = changes.filter(({ file }) => isWanted(file));
    if (wanted.length === 0) continue;
    const found = wanted.find(({ file, before }) => read(file)?.split(before).length === 2);
    if (found === undefined) {
      lost.push(name);
      continue;
    }
    const { file, before, after } = found;
    const at = read(file)!.indexOf(before);
    const line = read(file)!.slice(0, at).split("\n").length;
    mutants.push({ key: name, file, line, operator: "named", at, before, after });
  }
  return { mutants, lost };
}
