/**
 * Reads the files of uPlot that a page contains: from node_modules, or from Deno's cache. In
 * bundles, `npm run build` replaces this module by the text of those files.
 */
import { readFileSync } from "node:fs";

export interface PageFiles {
  script: string;
  style: string;
}

/** Not a literal: Deno would otherwise fetch it for every command, even where no page is made. */
const PACKAGE = ["#uplot"].join();

/** Rejects with an Error of one line where uPlot is not installed or may not be read. */
export async function readPageFiles(): Promise<PageFiles> {
  try {
    // Deno resolves the file of an npm package only after an import of that package.
    await import(PACKAGE, { with: { type: "json" } });
    const folder = import.meta.resolve(PACKAGE);
    const read = (name: string) => readFileSync(new URL(`dist/${name}`, folder), "utf8");
    return { script: read("uPlot.iife.min.js"), style: read("uPlot.min.css") };
  } catch (cause) {
    throw new Error(
      `cannot make a page because uPlot cannot be read: ${(cause as Error).message}; run npm ci, ` +
        `and with Deno allow it with --allow-read`,
      { cause },
    );
  }
}
