/**
 * Builds dist/: each command as a self-contained JavaScript file for Deno, Bun and Node, the library
 * with its type declarations, and all commands as one executable. Runs on Node.
 *
 *     npm run build
 *     npm run build -- --package      # only the files of the npm package
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
import { flag, option, parseCommandLine } from "../src/cli/command_line.ts";
import { COMMANDS } from "../src/cli/commands.ts";
import { logLine, printLine, runMain } from "../src/cli/program.ts";
import { readPageFiles } from "../src/report/page_files.ts";
import { formatBytes } from "../src/text/units.ts";

const ROOT = resolve(import.meta.dirname!, "..");

const spec = {
  name: "build",
  summary: "Bundles the commands and the library.",
  usage: ["build.ts [OPTIONS]"],
  options: {
    out: option({
      value: "DIR",
      help: "the output folder, relative to the current one",
      default: relative(process.cwd(), join(ROOT, "dist")) || ".",
      parse: (text) => resolve(text),
    }),
    package: flag("builds only what the npm package contains, and fails if a tool is missing"),
    "no-types": flag("builds no type declarations"),
  },
};

/** The programs: names in dist/ and modules. */
const PROGRAMS: Record<string, string> = {
  ...Object.fromEntries(
    Object.values(COMMANDS).map(({ file }) => [file, `src/cli/${file}.ts`]),
  ),
  speedlimit: "bin/speedlimit.ts",
};

const NOTICE =
  "// Includes parts of the Deno Standard Library, Copyright the Deno authors, MIT license.\n" +
  "// Programs that write pages include uPlot, Copyright Leon Sorokin, MIT license.";

/** Embeds uPlot's files as text: beside a bundle there is no node_modules to read them from. */
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
    // In a bundle it would be true for every module. buildProgram calls runMain instead.
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

/** Runs a program from node_modules, or else from the system. Undefined if it is not installed. */
function runTool(
  name: string,
  args: readonly string[],
  cwd: string,
): SpawnSyncReturns<string> | undefined {
  const local = join(ROOT, "node_modules/.bin", name);
  const result = spawnSync(existsSync(local) ? local : name, args, { cwd, encoding: "utf8" });
  if ((result.error as NodeJS.ErrnoException | undefined)?.code === "ENOENT") return undefined;
  if (result.error !== undefined) throw result.error;
  return result;
}

/** Writes the type declarations of mod.ts to `folder`. Returns false if Deno is not installed. */
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
    // `deno pack` creates declarations like JSR does. Nothing else of its package is used.
    const packed = runTool("deno", ["pack", "--no-source-maps", "--output", "types.tgz"], work);
    if (packed === undefined) return false;
    spawnSync("tar", ["-xzf", "types.tgz"], { cwd: work });
    if (!existsSync(join(work, "package/mod.d.ts"))) {
      const why = stripVTControlCharacters(packed.stderr);
      throw new Error(`cannot create type declarations of mod.ts: ${why}`);
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

/** Compiles a bundle to an executable for this system. Returns false if Bun is not installed. */
function buildExecutable(bundle: string, outfile: string, out: string): boolean {
  // The executable must not read a `.env` or bunfig.toml of the folder in which it is started.
  const noAutoload = ["--no-compile-autoload-dotenv", "--no-compile-autoload-bunfig"];
  const compiled = runTool(
    "bun",
    ["build", "--compile", ...noAutoload, bundle, "--outfile", outfile],
    out,
  );
  if (compiled === undefined) return false;
  if (compiled.status === 0) return true;
  throw new Error(`bun build --compile failed: ${compiled.stderr}`);
}

async function main(args: readonly string[]): Promise<void> {
  const { out, package: forPackage, "no-types": noTypes } = parseCommandLine(spec, args).options;
  mkdirSync(out, { recursive: true });
  const printBuilt = (name: string) => {
    const { size } = statSync(join(out, name));
    printLine(`${join(relative(process.cwd(), out), name)}  ${formatBytes(size)}`);
  };
  const skip = (what: string, tool: string) => {
    const line = `${what}: not built, because ${tool} is not installed`;
    if (forPackage) throw new Error(line);
    logLine(line);
  };
  for (const [name, module] of Object.entries(PROGRAMS)) {
    await buildProgram(name, module, join(out, `${name}.js`));
    printBuilt(`${name}.js`);
  }
  await esbuild({
    ...COMMON,
    entryPoints: [join(ROOT, "mod.ts")],
    outfile: join(out, "mod.js"),
  });
  printBuilt("mod.js");
  if (!noTypes) {
    if (buildDeclarations(join(out, "types"))) printBuilt("types/mod.d.ts");
    else skip("types/mod.d.ts", "deno");
  }
  if (forPackage) return;
  if (buildExecutable(join(out, "speedlimit.js"), join(out, "speedlimit"), out)) {
    printBuilt("speedlimit");
  } else skip("speedlimit", "bun");
}

await runMain("build", main);
