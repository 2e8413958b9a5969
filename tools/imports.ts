/** The imports of this project's files, and the rule that they follow: rooms import one way. */
import { globSync, readFileSync } from "node:fs";
import { dirname, join, normalize } from "node:path";

/**
 * The rooms of src/, from the ground up: a file imports only from its own room and from those
 * before it. `first` is the file to read first: what the room is for, what comes in, what goes out.
 */
export const ROOMS: readonly { name: string; first: string }[] = [
  { name: "text", first: "units.ts" },
  { name: "kernel", first: "kernel.ts" },
  { name: "net", first: "net.ts" },
  { name: "message", first: "message.ts" },
  { name: "send", first: "flood.ts" },
  { name: "output", first: "output.ts" },
  { name: "read", first: "drain.ts" },
  { name: "queue", first: "queue.ts" },
  { name: "measure", first: "limit.ts" },
  { name: "burst", first: "map.ts" },
  { name: "plan", first: "plan.ts" },
  { name: "source", first: "source.ts" },
  { name: "relay", first: "serve.ts" },
  { name: "report", first: "report.ts" },
  { name: "cli", first: "command_line.ts" },
];

/** What is outside src/, and so above its rooms, from the ground up. */
const OUTSIDE = ["mod.ts, server.ts, client.ts", "bin", "bench", "tools"];

/** All floors from the ground up: the rooms of src/, then what is outside. */
export const FLOORS: readonly string[] = [...ROOMS.map(({ name }) => name), ...OUTSIDE];

/** Imports by file, both from the project's folder on, with `/`. */
export type Imports = ReadonlyMap<string, readonly string[]>;

const FILES = ["*.ts", "src/*/*.ts", "bin/**/*.ts", "bench/**/*.ts", "tools/**/*.ts"];
const IMPORT = /^(?!\s*(?:\*|\/\/)).*?\b(?:from|import)\s*\(?\s*"(\.{1,2}\/[^"]+\.ts)"/gm;

/** Reads the imports of a project: of types too, for a cycle of types is a cycle to its reader. */
export function readImports(root: string): Imports {
  const imports = new Map<string, string[]>();
  for (const file of globSync(FILES, { cwd: root }).sort()) {
    if (file.endsWith(".d.ts")) continue;
    const text = readFileSync(join(root, file), "utf8");
    const targets = [...text.matchAll(IMPORT)].map(([, target]) =>
      normalize(join(dirname(file), target!))
    );
    imports.set(file, [...new Set(targets)]);
  }
  return imports;
}

/** The floor that a file is on; undefined: none. */
export function floorOf(file: string): number | undefined {
  const [top, room] = file.split("/");
  const name = top === "src" ? room! : file.includes("/") ? top! : OUTSIDE[0]!;
  const floor = FLOORS.indexOf(name);
  return floor < 0 ? undefined : floor;
}

/** One line for each import against the order, and for each file that is in no room. */
export function findUpwardImports(imports: Imports): string[] {
  return [...imports].flatMap(([file, targets]) => {
    const floor = floorOf(file);
    if (floor === undefined) return [`${file} is in no room`];
    return targets.flatMap((target) => {
      const below = floorOf(target);
      if (below !== undefined && below <= floor) return [];
      return [`${file} imports ${target}, which is above it`];
    });
  });
}

/** Cycles of files, each as `a.ts -> b.ts -> a.ts`; one for each group of files that are tied. */
export function findCycles(imports: Imports): string[] {
  const cycles: string[] = [];
  const done = new Set<string>();
  const path: string[] = [];
  const visit = (file: string): void => {
    const at = path.indexOf(file);
    if (at >= 0) {
      cycles.push([...path.slice(at), file].join(" -> "));
      return;
    }
    if (done.has(file)) return;
    path.push(file);
    for (const target of imports.get(file) ?? []) visit(target);
    path.pop();
    done.add(file);
  };
  for (const file of imports.keys()) visit(file);
  return cycles;
}
