/**
 * Draws docs/rooms.svg: the rooms of src/ and their imports, read from the files. Runs on Node.
 *
 *     npm run rooms               # after a change of imports
 *     npm run rooms -- --check    # exit 1 when the picture is not current
 */
import { readFileSync, writeFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { flag, parseCommandLine } from "../src/cli/command_line.ts";
import { printLine, runMain } from "../src/cli/program.ts";
import { escapeMarkup } from "../src/text/escape.ts";
import { findCycles, findUpwardImports, floorOf, FLOORS, readImports, ROOMS } from "./imports.ts";

const ROOT = resolve(import.meta.dirname!, "..");
const PICTURE = "docs/rooms.svg";

const ROW = 46;
const BOX = { left: 20, width: 480, height: 36 };
const WIDTH = 1000;
const TOP = 44;

interface Floor {
  name: string;
  files: number;
  /** How many imports of files it takes from each floor below it. */
  uses: Map<number, number>;
}

/** All floors from the ground up, with what they import. */
function readFloors(root: string): Floor[] {
  const floors = FLOORS.map((name): Floor => ({ name, files: 0, uses: new Map() }));
  for (const [file, targets] of readImports(root)) {
    const at = floorOf(file)!;
    const floor = floors[at]!;
    floor.files++;
    for (const target of targets) {
      const below = floorOf(target)!;
      if (below !== at) floor.uses.set(below, (floor.uses.get(below) ?? 0) + 1);
    }
  }
  return floors;
}

/** What a room is for: the first sentence of its first file's header. */
function purposeOf(root: string, room: { name: string; first: string }): string {
  const text = readFileSync(join(root, "src", room.name, room.first), "utf8");
  const header = /^\/\*\*([\s\S]*?)\*\//.exec(text)?.[1]?.replace(/\n \* ?/g, " ").trim() ?? "";
  const purpose = /^Room: (.*?)\.(?:\s|$)/.exec(header)?.[1];
  if (purpose === undefined) {
    throw new Error(`src/${room.name}/${room.first} must begin with a header "Room: ..."`);
  }
  return purpose;
}

function formatPicture(root: string): string {
  const floors = readFloors(root);
  const purposes = ROOMS.map((room) => purposeOf(root, room));
  const height = TOP + floors.length * ROW + 40;
  const top = (floor: number) => TOP + (floors.length - 1 - floor) * ROW;
  const right = BOX.left + BOX.width;
  const arrows: string[] = [];
  floors.forEach(({ name, uses }, from) => {
    const targets = [...uses].sort(([a], [b]) => b - a);
    targets.forEach(([to, count], i) => {
      const y1 = top(from) + BOX.height * (i + 1) / (targets.length + 1);
      const users = floors.flatMap((floor, at) => floor.uses.has(to) ? [at] : []);
      const place = users.indexOf(from);
      const y2 = top(to) + BOX.height * (users.length - place) / (users.length + 1);
      const reach = right + 30 + (from - to) * 30;
      arrows.push(
        `<path${from < ROOMS.length ? "" : ' class="far"'} stroke-width="${
          (0.7 + Math.log2(1 + count) / 3).toFixed(1)
        }" ` +
          `d="M${right} ${y1.toFixed(1)}C${reach} ${y1.toFixed(1)} ${reach} ${y2.toFixed(1)} ${
            right + 7
          } ${y2.toFixed(1)}" marker-end="url(#head)">` +
          `<title>${name} imports ${floors[to]!.name}: ${count}</title></path>`,
      );
    });
  });
  const boxes = floors.map(({ name, files }, floor) => {
    const y = top(floor);
    const inside = floor < ROOMS.length;
    const title = inside ? `src/${name}/` : name.includes(".") ? name : `${name}/`;
    const figures = `${files} files`;
    return `<rect class="${inside ? "room" : "outside"}" x="${BOX.left}" y="${y}" ` +
      `width="${BOX.width}" height="${BOX.height}" rx="4"/>` +
      `<text class="name" x="${BOX.left + 10}" y="${y + 15}">${title}</text>` +
      `<text class="figures" x="${right - 10}" y="${y + 15}">${figures}</text>` +
      (inside
        ? `<text class="purpose" x="${BOX.left + 10}" y="${y + 29}">${
          escapeMarkup(shortened(purposes[floor]!))
        }</text>`
        : "");
  });
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${height}" role="img" ` +
    `aria-label="The rooms of the code and their imports: every arrow goes down">
<style>
text { font: 11px ui-sans-serif, system-ui, sans-serif; fill: #1f2328 }
.name { font-weight: 600; font-size: 13px } .figures { text-anchor: end; fill: #59636e }
.purpose, .note { fill: #59636e } .room { fill: #ddf4ff; stroke: #54aeff }
.outside { fill: #f6f8fa; stroke: #d1d9e0 } path { fill: none; stroke: #57606a; opacity: .6 } .far { opacity: .25 }
#head path { fill: #57606a; stroke: none; opacity: .9 }
@media (prefers-color-scheme: dark) { text { fill: #f0f6fc } .figures, .purpose, .note { fill: #9198a1 }
.room { fill: #0c2d6b; stroke: #388bfd } .outside { fill: #151b23; stroke: #3d444d }
path { stroke: #9198a1 } #head path { fill: #9198a1 } }
</style>
<defs><marker id="head" viewBox="0 0 8 8" refX="6" refY="4" markerWidth="7" markerHeight="7" markerUnits="userSpaceOnUse" orient="auto"><path d="M0 0L8 4L0 8z"/></marker></defs>
<text class="note" x="${BOX.left}" y="24">An arrow: imports from. Thicker: more imports. A file imports only from its own room and from rooms below it.</text>
${arrows.join("\n")}
${boxes.join("\n")}
</svg>
`;
}

/** Ends where the box does. */
function shortened(text: string): string {
  const longest = 80;
  return text.length <= longest ? text : `${text.slice(0, text.lastIndexOf(" ", longest - 1))} …`;
}

const spec = {
  name: "rooms",
  summary: "Draws docs/rooms.svg from the imports, and checks that none goes upward.",
  usage: ["rooms.ts [--check]"],
  options: { check: flag("writes nothing; exits 1 when the picture is not current") },
};

function main(args: readonly string[]): number {
  const { options } = parseCommandLine(spec, args);
  const imports = readImports(ROOT);
  const wrong = [...findUpwardImports(imports), ...findCycles(imports)];
  if (wrong.length > 0) throw new Error(wrong.join("; "));
  const file = join(ROOT, PICTURE);
  const picture = formatPicture(ROOT);
  if (options.check) {
    if (readFileSync(file, "utf8") !== picture) {
      throw new Error(`${PICTURE} is not current: run npm run rooms`);
    }
    printLine(`${PICTURE} is current`);
  } else {
    writeFileSync(file, picture);
    printLine(`${PICTURE} written`);
  }
  return 0;
}

if (import.meta.main) await runMain("rooms", main);
