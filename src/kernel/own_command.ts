/** The command line that starts this program again, on the same runtime. */
import process from "node:process";
import { runtime } from "./runtime.ts";

/** This program with other arguments: a program and its arguments. */
export function ownCommand(...args: readonly string[]): string[] {
  const script = process.argv[1]!;
  // An executable made by `bun build --compile` contains the script: it must not be named.
  const self = script.startsWith("/$bunfs/") ? [] : [...runtimeFlags(), script];
  return [process.execPath, ...self, ...args];
}

function runtimeFlags(): string[] {
  switch (runtime) {
    case "deno":
      return ["run", "--no-prompt", "--allow-net", "--allow-ffi", ...modulesFlag()];
    case "bun":
      return [];
    case "node":
      return ["--no-warnings", ...process.execArgv];
  }
}

/**
 * Where packages were not installed by npm, `deno task` takes them from Deno's own cache in spite of
 * deno.json, and the new process must do the same.
 */
function modulesFlag(): string[] {
  try {
    const found = import.meta.resolve("#std/cli");
    return found.includes("/node_modules/") ? [] : ["--node-modules-dir=none"];
  } catch {
    // A bundle imports no packages.
    return [];
  }
}
