/**
 * Compiles the C readers and peers when they are first used. What other compilers make is kept in the
 * same way (languages.ts).
 *
 * @module
 */
import { execFile, type ExecFileException } from "node:child_process";
import { createHash, randomUUID } from "node:crypto";
import { promises as fs } from "node:fs";
import { arch, tmpdir } from "node:os";
import process from "node:process";

interface Compiler {
  /** The program and its own arguments: `CC="ccache gcc"` gives two words. */
  command: string[];
  /** Its version text: with another version, files are compiled again. */
  version: string;
}

/** `-lm` belongs behind the source. */
const FLAGS = ["-O2", "-pthread"];
const LIBRARIES = ["-lm"];

/**
 * Compiles a C file with `cc -O2` unless that was done before, and returns the path of the program.
 *
 * The compiler is the first of $CC, cc, gcc and clang that exists. The program is kept in a folder
 * of the user under the system's folder for temporary files; its name has a hash of the source, the
 * headers beside it and the compiler. Parallel calls are safe: each compiles to a name of its own, and then renames the
 * file.
 *
 * On Deno this needs `--allow-env --allow-sys=uid --allow-run=cc`, and the permissions to read the
 * source, and to read and write the folder for temporary files.
 *
 * @param source The C file, as a path or a `file:` URL. It may include system headers, and headers
 * beside it that include system headers only.
 * @throws {Error} With a message of one line, without a compiler or where compiling fails.
 */
export async function compileC(source: string | URL): Promise<string> {
  const path = typeof source === "string" ? source : decodeURIComponent(source.pathname);
  const text = await fs.readFile(path, "utf8");
  const folder = path.slice(0, path.lastIndexOf("/") + 1);
  const headers = await Promise.all(
    [...text.matchAll(/^#include "(.+)"$/gm)].map(([, header]) =>
      fs.readFile(`${folder}${header}`, "utf8")
    ),
  );
  const compiler = await findCompiler();
  const name = path.slice(path.lastIndexOf("/") + 1).replace(/\.c$/, "");
  return await keepCompiled(name, [text, headers, compiler, FLAGS], async (program) => {
    try {
      await run([...compiler.command, ...FLAGS, "-o", program, path, ...LIBRARIES]);
    } catch (cause) {
      const lines = (cause instanceof Error ? cause.message : String(cause)).split("\n");
      const reason = lines.find((line) => line.includes("error:")) ?? lines[0];
      throw new Error(`cannot compile ${path} with ${compiler.command.join(" ")}: ${reason}`, {
        cause,
      });
    }
  });
}

/**
 * Compiles something unless that was done before, and returns its path, in a folder that only its
 * owner can write to. Parallel calls are safe.
 *
 * @param name How its path begins.
 * @param madeFrom All that decides what is compiled, as JSON: with something else, it is compiled again.
 * @param compile Writes a file, or a folder, of the given path.
 * @throws {Error} What `compile` throws.
 */
export async function keepCompiled(
  name: string,
  madeFrom: unknown,
  compile: (path: string) => Promise<void>,
): Promise<string> {
  const hash = createHash("sha256")
    .update(JSON.stringify([madeFrom, arch()]))
    .digest("hex").slice(0, 16);
  const kept = `${await cacheFolder()}/${name}-${hash}`;
  if (await exists(kept)) return kept;

  const unfinished = `${kept}.${randomUUID()}`;
  try {
    await compile(unfinished);
    await fs.rename(unfinished, kept);
  } catch (error) {
    await fs.rm(unfinished, { recursive: true, force: true });
    // A parallel call may have been first: a folder does not replace another one.
    if (!await exists(kept)) throw error;
  }
  return kept;
}

async function findCompiler(): Promise<Compiler> {
  for (const candidate of [process.env.CC ?? "", "cc", "gcc", "clang"]) {
    const command = candidate.split(/\s+/).filter((word) => word !== "");
    if (command.length === 0) continue;
    try {
      return { command, version: await run([...command, "--version"]) };
    } catch (error) {
      if (!hasCode(error, "ENOENT")) {
        throw new Error(`cannot run the C compiler ${candidate}: ${firstLine(error)}`, {
          cause: error,
        });
      }
    }
  }
  throw new Error("no C compiler: install gcc or clang, or set CC");
}

/** Makes the folder if it does not exist. Others must not be able to put their programs into it. */
async function cacheFolder(): Promise<string> {
  const uid = process.getuid?.() ?? 0;
  const folder = `${tmpdir()}/speedlimit-${uid}`;
  await fs.mkdir(folder, { recursive: true, mode: 0o700 });
  const { uid: owner, mode } = await fs.lstat(folder);
  const isFolder = (mode & 0o170000) === 0o040000;
  if (!isFolder || owner !== uid || (mode & 0o022) !== 0) {
    throw new Error(`${folder} must be a folder that only its owner can write to: remove it`);
  }
  return folder;
}

async function exists(path: string): Promise<boolean> {
  try {
    await fs.access(path);
    return true;
  } catch (error) {
    if (hasCode(error, "ENOENT")) return false;
    throw error;
  }
}

/** What a program prints on standard output. Rejects with the error of `execFile`. */
export function run(command: readonly string[]): Promise<string> {
  const [program = "", ...args] = command;
  return new Promise((resolve, reject) => {
    execFile(program, args, (error: ExecFileException | null, stdout: string) => {
      if (error) reject(error);
      else resolve(stdout);
    });
  });
}

export function hasCode(error: unknown, code: string): boolean {
  return error instanceof Error && "code" in error && error.code === code;
}

function firstLine(error: unknown): string {
  return (error instanceof Error ? error.message : String(error)).split("\n")[0] ?? "";
}
