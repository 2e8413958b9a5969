/** Reads the messages of a queue of the first version: one SQLite database, a stream for each reader. */
import type { DatabaseSync } from "node:sqlite";
import type { Batch } from "./queue.ts";
import type { Sqlite } from "./sqlite.ts";

export class FirstFormat {
  readonly #database: DatabaseSync;

  /** Throws an Error of SQLite. */
  constructor({ DatabaseSync }: Sqlite, file: string) {
    this.#database = new DatabaseSync(file, { readOnly: true });
  }

  get readers(): string[] {
    const rows = this.#database.prepare("SELECT name FROM readers ORDER BY id").all();
    return rows.map(({ name }) => String(name));
  }

  /** The stored batches of a reader, in order, from the first byte that is not delivered on. */
  *batches(name: string): Generator<Batch> {
    const query = this.#database.prepare(
      "SELECT batches.offset, batches.messages, data.bytes, readers.delivered FROM readers " +
        "JOIN batches ON batches.reader = readers.id JOIN data ON data.id = batches.data " +
        "WHERE readers.name = ? ORDER BY batches.offset",
    );
    for (const row of query.iterate(name)) {
      const { offset, messages, delivered } = row as Record<string, number>;
      const bytes = row["bytes"] as Uint8Array;
      const skip = Math.min(bytes.length, Math.max(0, delivered! - offset!));
      if (skip === bytes.length) continue;
      yield { offset: offset! + skip, messages: messages!, bytes: bytes.subarray(skip) };
    }
  }

  close(): void {
    this.#database.close();
  }
}
