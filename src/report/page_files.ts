/**
 * The files of uPlot that go into a page. `npm run build` puts their text into the bundles in place of
 * this module, which finds them in node_modules, or with Deno alone in its cache.
 */
import { readFileSync } from "node:fs";

export interface PageFiles {
  script: string;
  style: string;
}

/** Not a literal: Deno would fetch it for each command, also where no page is asked for. */
const PACKAGE = ["#uplot"].join();

/** Rejects with an Error of one line where uPlot is not there, or may not be read. */
export async function readPageFiles(): Promise<PageFiles> {
  try {
    // Deno knows the file of an npm package only once it was imported.
    await import(PACKAGE, { with: { type: "json" } });
    const folder = import.meta.resolve(PACKAGE);
    const read = (name: string) => readFileSync(new URL(`dist/${name}`, folder), "utf8");
    return { script: read("uPlot.iife.min.js"), style: read("uPlot.min.css") };
  } catch (cause) {
    throw new Error(
      `a page needs uPlot, which cannot be read: ${(cause as Error).message}; run npm ci, and on ` +
        `Deno give --allow-read`,
      { cause },
    );
  }
}
