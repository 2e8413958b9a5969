/** client.ts and numbered messages: what it verifies, acknowledges and stores. */
import { describe, test } from "node:test";
import { mkdirSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { assert, assertEquals, assertMatch, assertStringIncludes } from "#std/assert";
import type { Connection } from "../src/net/net.ts";
import { runtime } from "../src/kernel/runtime.ts";
import { readOffset } from "../src/message/offset_file.ts";
import { fillNumbered, NumberedVerifier } from "../src/message/numbered.ts";
import { AckPeer, type AckPeerOptions, STREAM } from "./ack_peer.ts";
import { assertFails, assertOneLine, client, served, withFiles } from "./client_run.ts";
import { send, sendAndFinish } from "./peer.ts";
import { type RunResult, start } from "./process.ts";
import { skip } from "./skip.ts";
import { until, within } from "./within.ts";

describe(`client.ts on ${runtime}: numbered messages`, () => {
  const numbered = (first: number, count: number, size: number): Uint8Array => {
    const bytes = new Uint8Array(count * size);
    fillNumbered(bytes, { first, count, size, plannedMs: Date.now(), everyMs: 0 });
    return bytes;
  };
  const sending = (parts: Uint8Array[], args: string[]): Promise<RunResult> =>
    served(async (connection) => {
      for (const part of parts) await send(connection, part);
      await connection.closeWrite();
    }, (server) => client([server, ...args]));

  test("all is well: a line for people, an object in the JSON, exit 0", async () => {
    const [people, json] = await Promise.all([
      sending([numbered(0, 1000, 64)], ["--verify"]),
      sending([numbered(0, 1000, 1024)], ["--verify", "--size", "1k", "--json"]),
    ]);
    assertMatch(people.stdout, /\nall 1000 messages arrived in order\n$/);
    assertMatch(people.stderr, /^connected to [^\n]*\n$/);
    const none = { missing: 0, duplicates: 0, outOfOrder: 0, damaged: 0 };
    assertEquals(JSON.parse(json.stdout).verified, { messages: 1000, ...none });
    assertEquals([people.status, json.status, json.stderr], [0, 0, ""]);
  });

  test("anything wrong: the result, one line, exit 1", async () => {
    const damaged = numbered(14, 1, 64);
    damaged[40]! ^= 4;
    const wrong = [[0, 10], [9, 1], [12, 2], [11, 1]].map(([first, count]) =>
      numbered(first!, count!, 64)
    );
    const all = [...wrong, damaged];
    const { stdout, stderr, status } = await sending(all, ["--verify", "--json"]);
    const counts = { missing: 1, duplicates: 1, outOfOrder: 1, damaged: 1 };
    assertEquals(JSON.parse(stdout).verified, { messages: 15, ...counts });
    const said = "15 messages received: 1 missing, 1 duplicate, 1 out of order, 1 damaged";
    assertEquals([stderr, status], [`client: ${said}\n`, 1]);
    for (const part of wrong.slice(1)) {
      const { status } = await sending([numbered(0, 10, 64), part], ["--verify"]);
      assertEquals(status, 1);
    }
  });

  test("bytes that are no numbered messages: exit 1", async () => {
    const serve = (connection: Connection) => sendAndFinish(connection, 6400);
    const { stdout, stderr, status } = await served(
      serve,
      (to) => client([to, "--verify", "--json"]),
    );
    assertEquals([JSON.parse(stdout).verified.damaged, status], [100, 1]);
    assertStringIncludes(
      stderr,
      "does the server run with --message numbered and the same --size?",
    );
  });
});

describe(`client.ts on ${runtime}: acknowledgements`, () => {
  const SIZE = 64;
  const VERIFY = ["--ack", "--verify", "--json"];
  const withPeer = async <T>(
    options: Omit<AckPeerOptions, "size">,
    use: (server: string, peer: AckPeer) => Promise<T>,
  ): Promise<T> => {
    const peer = new AckPeer({ size: SIZE, ...options });
    return await served(peer.serve, async (server) => {
      const result = await use(server, peer);
      await within("the server's end", 5000, peer.ended);
      return result;
    });
  };
  const fileOf = (folder: string) => join(folder, "offset");

  test("an offset file: made, gone on from, and nothing else beside it", async () => {
    await withFiles({}, async (folder) => {
      const file = fileOf(folder);
      for (const [from, end] of [[0, 20_000 * SIZE], [20_000 * SIZE, 50_000 * SIZE]] as const) {
        await withPeer({ end, hello: true }, async (server, peer) => {
          const more = ["--hello", "me", "--offset-file", file];
          const { stdout, stderr, status } = await client([server, ...VERIFY, ...more]);
          const { bytes, stored, missed, verified } = JSON.parse(stdout);
          assertEquals([bytes, missed, stderr, status], [end - from, 0, "", 0]);
          assertEquals(stored, { offset: end, stream: STREAM });
          assertEquals([verified.messages, verified.missing], [(end - from) / SIZE, 0]);
          assertEquals(peer.asked, [from === 0 ? undefined : { offset: from, stream: STREAM }]);
          assertEquals([peer.names, peer.acked], [["me"], end]);
        });
        assertEquals(readFileSync(file, "utf8"), `${end} ${STREAM}\n`);
      }
      assertEquals(readdirSync(folder), ["offset"]);
    });
  });

  test("for people: how far it is stored", async () => {
    const { stdout, status } = await withPeer(
      { end: 100 * SIZE },
      (server) => client([server, "--ack"]),
    );
    assertMatch(stdout, new RegExp(`\nstored up to offset ${100 * SIZE} of stream ${STREAM}\n$`));
    assertEquals(status, 0);
  });

  test("a malformed offset file: exit 1, untouched", async () => {
    const texts = ["", "\n", "5", `5 ${STREAM}`, `x ${STREAM}\n`, `5 ${STREAM}\n\n`, "5 5\n"];
    const files = Object.fromEntries(texts.map((text, i) => [`${i}`, text]));
    await withFiles(files, async (folder) => {
      for (const [name, text] of Object.entries(files)) {
        const file = join(folder, name);
        await withPeer({}, async (server, peer) => {
          const result = await client([server, "--ack", "--offset-file", file]);
          assertFails(result, 1, `the offset file ${file} must contain one line "OFFSET STREAM"`);
          assertEquals([peer.asked, readFileSync(file, "utf8")], [[], text]);
        });
      }
    });
  });

  test("another stream: one line that says what to do, exit 1, the file untouched", async () => {
    const text = `6400 ${"a".repeat(16)}\n`;
    await withFiles({ offset: text }, async (folder) => {
      const file = fileOf(folder);
      const answer = () => `at 0 ${STREAM}\n`;
      const result = await withPeer(
        { answer },
        (server) => client([server, "--ack", "--offset-file", file]),
      );
      assertFails(result, 1, `the server's stream is ${STREAM}, not ${"a".repeat(16)}: `);
      assertStringIncludes(result.stderr, `${file} was not changed: delete it to read`);
      assertEquals(readFileSync(file, "utf8"), text);
    });
  });

  test("what the server no longer has: in messages or in bytes, one line, exit 1", async () => {
    const end = 100 * SIZE;
    const answer = () => `at ${30 * SIZE} ${STREAM}\n`;
    for (const verify of [true, false]) {
      await withFiles({ offset: `${20 * SIZE} ${STREAM}\n` }, async (folder) => {
        const args = ["--ack", "--json", "--offset-file", fileOf(folder)];
        const { stdout, stderr, status } = await withPeer(
          { end, answer },
          (server) => client([server, ...args, ...(verify ? ["--verify"] : [])]),
        );
        const { verified, missed, stored } = JSON.parse(stdout);
        assertEquals([missed, verified?.missing], [10 * SIZE, verify ? 10 : undefined]);
        assertStringIncludes(stderr, verify ? "10 missing, 0 duplicates" : "640 bytes are missing");
        assertEquals([stored.offset, status], [end, 1]);
        assertOneLine(stderr);
        assertEquals(readOffset(fileOf(folder)), { offset: end, stream: STREAM });
      });
    }
  });

  test("SIGINT: the offset file is what the result says, and the next one misses nothing", async () => {
    await withFiles({}, async (folder) => {
      const file = fileOf(folder);
      const args = [...VERIFY, "--offset-file", file];
      let from: number | undefined;
      for (let round = 0; round < 3; round++) {
        await withPeer({}, async (server, peer) => {
          const child = start(["client.ts", server, ...args]);
          await until("an acknowledgement", 10_000, () => peer.acks.length > 0);
          child.kill("SIGINT");
          const { stdout, stderr, status } = await within("its end", 5000, child.ended);
          const { stored, verified, ended } = JSON.parse(stdout);
          assertEquals([ended, status, stderr], ["interrupted", 130, ""]);
          assertEquals(verified.missing + verified.duplicates + verified.outOfOrder, 0);
          assertEquals(peer.asked[0]?.offset, from);
          assertEquals(readOffset(file), stored);
          from = stored.offset as number;
        });
      }
    });
  });

  test("an offset file that cannot be written: one line, exit 1, nothing acknowledged", async () => {
    await withFiles({}, async (folder) => {
      // What is to be written beside it cannot be: root may write anywhere else.
      mkdirSync(`${fileOf(folder)}.new`);
      await withPeer({}, async (server, peer) => {
        const result = await client([server, "--ack", "--offset-file", fileOf(folder)]);
        assertFails(result, 1, `cannot write the offset file ${fileOf(folder)}: `);
        assertEquals(peer.acks, []);
      });
    });
  });

  test("killed at any moment, ten times: nothing is lost between it and where it forwards", async () => {
    await withFiles({}, async (folder) => {
      const file = fileOf(folder);
      const peer = new AckPeer({ size: SIZE, hello: true });
      let received = 0;
      let sink = new NumberedVerifier(SIZE);
      let sunk: Promise<void> = Promise.resolve();
      const onForward = (connection: Connection) => {
        sunk = (async () => {
          for (let chunk; (chunk = await connection.read(65_536)) !== null;) {
            received += chunk.length;
            sink.push(chunk);
          }
        })();
      };
      await served(onForward, (forward) =>
        served(peer.serve, async (server) => {
          const args = [server, ...VERIFY, "--hello", "me", "--offset-file", file];
          for (let round = 0; round < 10; round++) {
            const before = readOffset(file);
            const from = before?.offset ?? 0;
            received = 0;
            sink = new NumberedVerifier(SIZE, from / SIZE);
            const acks = peer.acks.length;
            const child = start(["client.ts", ...args, "--forward", forward]);
            await until("an acknowledgement", 10_000, () => peer.acks.length > acks);
            await new Promise((resolve) => setTimeout(resolve, Math.random() * 60));
            child.kill("SIGKILL");
            const { signal } = await within("its end", 5000, child.ended);
            await within("the far end", 5000, sunk);
            await within("the server's end", 5000, peer.ended);
            assertEquals([signal, peer.names.length], ["SIGKILL", round + 1]);
            assertEquals(peer.asked.at(-1), before);
            // Never torn, never behind what was acknowledged, never ahead of what was handed on.
            const stored = readOffset(file)!;
            assertEquals([stored.stream, stored.offset % SIZE], [STREAM, 0]);
            assert(stored.offset >= peer.acked, `${stored.offset} after ack ${peer.acked}`);
            assert(stored.offset <= from + received, `${stored.offset} of ${from + received}`);
            const { messages, missing, duplicates, outOfOrder, damaged } = sink;
            assertEquals([missing, duplicates, outOfOrder, damaged], [0, 0, 0, 0]);
            assert(messages > 0);
          }
          const last = await client([...args, "--count", "1M"]);
          const { verified, missed } = JSON.parse(last.stdout);
          assertEquals([missed, verified.messages, last.status], [0, (1 << 20) / SIZE, 0]);
        }));
    });
  });
});

describe("client.ts on Deno", () => {
  test("asks for no more permissions than it needs", async (t) => {
    if (runtime !== "deno") return skip(t, "only Deno has permissions");
    const serve = (connection: Connection) => sendAndFinish(connection, 100_000);
    const run = (permissions: string[], ...args: string[]) =>
      served(serve, (server) => client([server, "--json", ...args], { permissions }));
    const least = await run(["--allow-net", "--allow-ffi"]);
    assertEquals([least.status, least.stderr], [0, ""]);
    const handler = await run(["--allow-net", "--allow-ffi"], "--handler", "mod.ts");
    assertFails(handler, 1, "--allow-read");
    await withFiles({}, async (folder) => {
      const permissions = ["--allow-net", "--allow-ffi", `--allow-read=${folder}`];
      const peer = new AckPeer({ size: 64, end: 6400 });
      const { status, stderr } = await served(
        peer.serve,
        (server) =>
          client([server, "--json", "--ack", "--offset-file", join(folder, "offset")], {
            permissions: [...permissions, `--allow-write=${folder}`],
          }),
      );
      assertEquals([status, stderr, peer.acked], [0, "", 6400]);
    });
    const nothing = await run([]);
    assertEquals([nothing.status, nothing.stdout], [1, ""]);
    assertOneLine(nothing.stderr);
  });
});
