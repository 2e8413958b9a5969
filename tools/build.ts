/**
 * Makes dist/: each command as one self-contained JavaScript file that runs on Deno, Bun and Node,
 * the library as another with its declarations, and all commands as one executable. Runs on Node.
 *
 *     npm run build
 *     npm run build -- --package      # what the npm package ships
 */
import { spawnSync, type SpawnSyncReturns } from "node:child_process";
import {
  chmodSync,
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join, relative, resolve } from "node:path";
import process from "node:process";
import { stripVTControlCharacters } from "node:util";
import { build as esbuild, type BuildOptions, type Plugin } from "esbuild";
import { readPageFiles } from "../src/report/page_files.ts";
import { flag, option, parseCommandLine } from "../src/cli/command_line.ts";
import { print, report, runMain } from "../src/cli/program.ts";
import { formatBytes } from "../src/text/units.ts";

const ROOT = resolve(import.meta.dirname!, "..");

const spec = {
  name: "build",
  summary: "Bundles the commands and the library.",
  usage: ["build.ts [OPTIONS]"],
  options: {
    out: option({
      value: "DIR",
      help: "where to, from here on",
      default: relative(process.cwd(), join(ROOT, "dist")) || ".",
      parse: (text) => resolve(text),
    }),
    package: flag("what the npm package ships: no executable, and nothing may be left out"),
  },
};

/** Files that are programs: their names in dist/, and their modules. */
const PROGRAMS = {
  server: "src/cli/server.ts",
  client: "src/cli/client.ts",
  limit: "src/cli/limit.ts",
  report: "src/cli/report.ts",
  queue: "src/cli/queue.ts",
  speedlimit: "bin/speedlimit.ts",
};

const NOTICE =
  "// Includes parts of the Deno Standard Library, Copyright the Deno authors, MIT license.\n" +
  "// Programs that write pages include uPlot, Copyright Leon Sorokin, MIT license.";

/** In a bundle uPlot's files are text: there is no node_modules to find them in. */
const WITH_PAGE_FILES: Plugin = {
  name: "page files",
  setup(build) {
    build.onLoad({ filter: /page_files\.ts$/ }, async () => ({
      contents: `export const readPageFiles = async () => (${
        JSON.stringify(await readPageFiles())
      });`,
    }));
  },
};

const COMMON: BuildOptions = {
  bundle: true,
  absWorkingDir: ROOT,
  platform: "node",
  format: "esm",
  target: "node20",
  charset: "utf8",
  plugins: [WITH_PAGE_FILES],
  logLevel: "warning",
  inject: [join(ROOT, "tools/with_resolvers.ts")],
  define: {
    // In one file every module would be the main one. What is, calls runMain below.
    "import.meta.main": "false",
    "Promise.withResolvers": "withResolvers",
  },
};

async function buildProgram(name: string, module: string, outfile: string): Promise<void> {
  const contents = `import { main } from "./${module}";
    import { runMain } from "./src/cli/program.ts";
    await runMain("${name}", (args) => main(args, "${name}.js"));`;
  await esbuild({
    ...COMMON,
    stdin: { contents, resolveDir: ROOT, sourcefile: `${name}.js` },
    outfile,
    banner: { js: `#!/usr/bin/env node\n${NOTICE}` },
  });
  chmodSync(outfile, 0o755);
}

/** A program of a package in node_modules, or of the system. Undefined: it is not there. */
function runTool(
  name: string,
  args: readonly string[],
  cwd: string,
): SpawnSyncReturns<string> | undefined {
  const ours = join(ROOT, "node_modules/.bin", name);
  const result = spawnSync(existsSync(ours) ? ours : name, args, { cwd, encoding: "utf8" });
  if ((result.error as NodeJS.ErrnoException | undefined)?.code === "ENOENT") return undefined;
  if (result.error !== undefined) throw result.error;
  return result;
}

/** The declarations of mod.ts and of what it exports, in `folder`. False: no Deno to make them. */
function buildDeclarations(folder: string): boolean {
  const work = mkdtempSync(join(tmpdir(), "speedlimit-types-"));
  try {
    cpSync(join(ROOT, "mod.ts"), join(work, "mod.ts"));
    cpSync(join(ROOT, "src"), join(work, "src"), { recursive: true });
    symlinkSync(join(ROOT, "node_modules"), join(work, "node_modules"));
    const config = {
      name: "@speedlimit/types",
      version: "0.0.0",
      exports: "./mod.ts",
      exclude: ["node_modules"],
      nodeModulesDir: "manual",
      lock: false,
    };
    writeFileSync(join(work, "deno.json"), JSON.stringify(config));
    // `deno pack` makes declarations as JSR does; of its package nothing else is used.
    const packed = runTool("deno", ["pack", "--no-source-maps", "--output", "types.tgz"], work);
    if (packed === undefined) return false;
    spawnSync("tar", ["-xzf", "types.tgz"], { cwd: work });
    if (!existsSync(join(work, "package/mod.d.ts"))) {
      const why = stripVTControlCharacters(packed.stderr);
      throw new Error(`no declarations of mod.ts could be made: ${why}`);
    }
    rmSync(folder, { recursive: true, force: true });
    cpSync(join(work, "package"), folder, {
      recursive: true,
      filter: (from) => statSync(from).isDirectory() || from.endsWith(".d.ts"),
    });
    return true;
  } finally {
    rmSync(work, { recursive: true, force: true });
  }
}

/** One executable of a bundle, for this system. False: no Bun to make it. */
function buildExecutable(bundle: string, outfile: string, out: string): boolean {
  // A `.env` or a bunfig.toml in the folder where it is started is not meant for it.
  const without = ["--no-compile-autoload-dotenv", "--no-compile-autoload-bunfig"];
  const compiled = runTool(
    "bun",
    ["build", "--compile", ...without, bundle, "--outfile", outfile],
    out,
  );
  if (compiled === undefined) return false;
  if (compiled.status === 0) return true;
  throw new Error(`bun build --compile failed: ${compiled.stderr}`);
}

async function main(args: readonly string[]): Promise<void> {
  const { out, package: forPackage } = parseCommandLine(spec, args).options;
  mkdirSync(out, { recursive: true });
  const made = (name: string) => {
    const { size } = statSync(join(out, name));
    print(`${join(relative(process.cwd(), out), name)}  ${formatBytes(size)}`);
  };
  const leftOut = (what: string, tool: string) => {
    const line = `${what}: left out, ${tool} is not installed here`;
    if (forPackage) throw new Error(line);
    report(line);
  };
  for (const [name, module] of Object.entries(PROGRAMS)) {
    await buildProgram(name, module, join(out, `${name}.js`));
    made(`${name}.js`);
  }
  await esbuild({
    ...COMMON,
    entryPoints: [join(ROOT, "mod.ts")],
    outfile: join(out, "mod.js"),
  });
  made("mod.js");
  if (buildDeclarations(join(out, "types"))) made("types/mod.d.ts");
  else leftOut("types/mod.d.ts", "deno");
  if (forPackage) return;
  if (buildExecutable(join(out, "speedlimit.js"), join(out, "speedlimit"), out)) made("speedlimit");
  else leftOut("speedlimit", "bun");
}

await runMain("build", main);
