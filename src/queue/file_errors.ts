/** Errors of the file system, as errors of the queue. */
import { basename } from "node:path";
import { QueueError, QueueFull } from "./queue.ts";

const NO_SPACE = new Set(["ENOSPC", "EDQUOT", "EFBIG"]);

/** An error of the file system as a QueueFull or QueueError. */
export function explain(error: unknown, what: string): QueueFull | QueueError {
  if (error instanceof QueueFull || error instanceof QueueError) return error;
  const { message, code = codeIn(message) } = error as NodeJS.ErrnoException;
  if (NO_SPACE.has(code)) return new QueueFull(`${what}: no space`, "disk", error);
  const path = /'(.*)'/.exec(message)?.[1];
  const where = path === undefined ? "" : ` (${basename(path)})`;
  return new QueueError(`${what}: ${REASONS[code] ?? message}${where}`, { cause: error });
}

/** Deno 2.9.5 gives some errors only a text: "File too large (os error 27)". Of Linux. */
function codeIn(message: string): string {
  const number = /\(os error (\d+)\)/.exec(message)?.[1] ?? "";
  return { 5: "EIO", 27: "EFBIG", 28: "ENOSPC", 122: "EDQUOT" }[number] ?? "";
}

const REASONS: Record<string, string> = {
  EACCES: "not permitted",
  EPERM: "not permitted",
  EROFS: "its file system is read-only",
  ENOENT: "a file or folder is missing",
  ENOTDIR: "part of its path is not a folder",
  ELOOP: "a file in it is a symbolic link",
  ENAMETOOLONG: "its name is too long",
  EIO: "the disk reports an error",
};
