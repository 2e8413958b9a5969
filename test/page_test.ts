/// <reference lib="dom" />
/** The page of a report, in a real browser. */
import { after, before, describe, test, type TestContext } from "node:test";
import { existsSync, mkdtempSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { delimiter, join } from "node:path";
import process from "node:process";
import { pathToFileURL } from "node:url";
import { type Browser, chromium, type Page } from "playwright-core";
import { assert, assertEquals, assertMatch, assertNotEquals } from "#std/assert";
import { preparePage } from "../src/report/page.ts";
import { fromBench, fromLimits } from "../src/report/report.ts";
import type { LimitResult } from "../src/measure/limit_result.ts";
import { madeLimit, madeResult } from "./bench_results.ts";
import { skip } from "./skip.ts";
import { within } from "./within.ts";

const LONGEST_MS = 30_000;
/** Of one step in the page. */
const STEP_MS = 10_000;
const FLAGS = [
  "--headless",
  "--no-sandbox",
  "--disable-gpu",
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
];
const HOSTILE = `</script><img src=x onerror="globalThis.hacked = 1"><!-- & 'quoted'`;

const browserPath = ["chromium", "chromium-browser", "google-chrome"]
  .flatMap((name) => (process.env.PATH ?? "").split(delimiter).map((folder) => join(folder, name)))
  .find((path) => existsSync(path));

let folder = "";
let browser: Browser | undefined;

before(async () => {
  folder = mkdtempSync(join(tmpdir(), "speedlimit-page-"));
  const formatPage = await preparePage();
  writeFileSync(join(folder, "bench.html"), formatPage(fromBench(madeResult())));
  const failed: LimitResult = {
    ...madeLimit("failed", 1e6),
    outcome: "reader-failed",
    message: "it exited",
    limit: null,
    overload: null,
    trials: [],
  };
  const limits = [madeLimit(HOSTILE, 5e6), madeLimit("plain", 50e6, 1e6), failed];
  writeFileSync(join(folder, "failed.html"), formatPage(fromLimits([failed], "limit")));
  writeFileSync(join(folder, "hostile.html"), formatPage(fromLimits(limits, `limit ${HOSTILE}`)));
  if (browserPath === undefined) return;
  // Playwright gives it a new folder for its profile each time.
  const launch = chromium.launch({ executablePath: browserPath, args: FLAGS, timeout: LONGEST_MS });
  browser = await within("the browser", LONGEST_MS, launch);
});
after(async () => {
  if (browser !== undefined) await within("the browser's end", LONGEST_MS, browser.close());
  rmSync(folder, { recursive: true, force: true });
});

interface Seen {
  page: Page;
  /** Errors on its console, and exceptions. */
  errors: string[];
  /** What it asked for that is no file and no data. */
  requests: string[];
}

/** Opens a page and does something with it, which must raise no error and ask for nothing. */
async function inPage(
  t: TestContext,
  name: string,
  act: (seen: Seen) => Promise<void>,
  { width = 1280, dark = false } = {},
): Promise<void> {
  if (browser === undefined) {
    const why = "there is no Chromium on PATH, which this page is tried in";
    assert(process.env.SPEEDLIMIT_EXPECT_BROWSER === undefined, why);
    return skip(t, why);
  }
  const page = await browser.newPage({
    viewport: { width, height: 900 },
    colorScheme: dark ? "dark" : "light",
  });
  page.setDefaultTimeout(STEP_MS);
  const seen: Seen = { page, errors: [], requests: [] };
  page.on("console", (said) => {
    if (said.type() === "error" || said.type() === "warning") seen.errors.push(said.text());
  });
  page.on("pageerror", (error) => seen.errors.push(error.message));
  page.on("request", (request) => {
    if (!/^(file|data):/.test(request.url())) seen.requests.push(request.url());
  });
  try {
    await within(
      name,
      LONGEST_MS,
      (async () => {
        await page.goto(pathToFileURL(join(folder, name)).href);
        await page.locator("#curve canvas").waitFor();
        await settled(page);
        await act(seen);
      })(),
    );
    assertEquals([seen.errors, seen.requests], [[], []]);
  } finally {
    await within("the page's end", LONGEST_MS, page.close());
  }
}

/** uPlot draws in a microtask, and the page after the next layout. */
const settled = (page: Page) =>
  page.evaluate(() =>
    new Promise<void>((done) => requestAnimationFrame(() => requestAnimationFrame(() => done())))
  );

/** What is drawn. */
async function drawn(page: Page): Promise<string> {
  await settled(page);
  return await page.locator("#curve canvas").evaluate((canvas: HTMLCanvasElement) =>
    canvas.toDataURL()
  );
}

const readout = (page: Page, id = "readout") => page.locator(`#${id}`).textContent();
const VALUES = /^(\w+ \w+): offered [\d.]+ [kMG]?B\/s, drained [\d.]+ [kMG]?B\/s \([\d.]+ %\); /;

/** Where a share of the plot's width and height is on the screen. */
async function pointAt(page: Page, across: number, down: number): Promise<[number, number]> {
  const box = (await page.locator("#curve .u-over").boundingBox())!;
  return [box.x + box.width * across, box.y + box.height * down];
}

describe("a page", () => {
  test("draws its curves", (t) =>
    inPage(t, "bench.html", async ({ page }) => {
      const colors = await page.locator("#curve canvas").evaluate((canvas: HTMLCanvasElement) => {
        const { data } = canvas.getContext("2d")!.getImageData(0, 0, canvas.width, canvas.height);
        return new Set(new Uint32Array(data.buffer)).size;
      });
      assert(colors > 50, `${colors} colours`);
      assert(statSync(join(folder, "bench.html")).size < 500_000, "it is too large");
    }));

  test("switches readers off and on, by mouse and keyboard", (t) =>
    inPage(t, "bench.html", async ({ page }) => {
      const all = await drawn(page);
      await page.locator("#readers input").first().click();
      const fewer = await drawn(page);
      assertNotEquals(fewer, all);
      await page.keyboard.press("Space");
      assertEquals(await drawn(page), all);
      await page.locator("#none").click();
      assertNotEquals(await drawn(page), fewer);
      assertEquals(await page.locator("#readers input:checked:visible").count(), 0);
      await page.locator("#all").click();
      assertEquals(await drawn(page), all);
    }));

  test("has the readers of one message size at a time", (t) =>
    inPage(t, "bench.html", async ({ page }) => {
      assertEquals(await page.locator("#readers label:visible").count(), 6);
      await page.locator("#sizes input").first().focus();
      await page.keyboard.press("ArrowRight");
      assertEquals(await page.locator("#readers label:visible .name").allTextContents(), [
        "deno drain",
      ]);
    }));

  test("shows the values under the mouse, with units", (t) =>
    inPage(t, "bench.html", async ({ page }) => {
      await page.mouse.move(...await pointAt(page, 0.9, 0.1));
      assertMatch((await readout(page))!, VALUES);
      assert(await page.locator(".spot").isVisible(), "the point is not marked");
    }));

  test("is read and zoomed by keyboard", (t) =>
    inPage(t, "bench.html", async ({ page }) => {
      for (let i = 0; i < 12; i++) {
        await page.keyboard.press("Tab");
        if (await page.evaluate(() => document.activeElement?.id === "curve")) break;
      }
      await page.keyboard.press("ArrowRight");
      const first = (await readout(page))!;
      await page.keyboard.press("ArrowRight");
      const second = (await readout(page))!;
      await page.keyboard.press("ArrowDown");
      const other = (await readout(page))!;
      for (const text of [first, second, other]) assertMatch(text, VALUES);
      assertNotEquals(first, second);
      assertEquals(VALUES.exec(first)![1], "c drain");
      assertNotEquals(VALUES.exec(other)![1], "c drain");
      const before = await drawn(page);
      await page.keyboard.press("+");
      assertNotEquals(await drawn(page), before);
      await page.keyboard.press("0");
      assertEquals(await drawn(page), before);
    }));

  test("zooms where the mouse drags, and back", (t) =>
    inPage(t, "bench.html", async ({ page }) => {
      const before = await drawn(page);
      await page.mouse.move(...await pointAt(page, 0.4, 0.2));
      await page.mouse.down();
      await page.mouse.move(...await pointAt(page, 0.6, 0.9), { steps: 4 });
      await page.mouse.up();
      assertNotEquals(await drawn(page), before);
      await page.locator("#zoom-reset").click();
      assertEquals(await drawn(page), before);
    }));

  test("sorts its table", (t) =>
    inPage(t, "bench.html", async ({ page }) => {
      const names = () => page.locator("table").first().locator("tbody th").allTextContents();
      const head = page.locator("th button", { hasText: "speed limit" });
      await head.click();
      const up = await names();
      assertEquals([up[0], up.at(-1)], ["deno naive", "deno drain"]);
      assertEquals(await head.locator("..").getAttribute("aria-sort"), "ascending");
      await page.keyboard.press("Enter");
      assertEquals(await names(), up.toReversed());
    }));

  test("has the latency at each rate, and sorts it", (t) =>
    inPage(t, "bench.html", async ({ page }) => {
      const table = page.getByRole("table", { name: "Latency" });
      const medians = () => table.locator("tbody td:nth-child(5)").allTextContents();
      const before = await medians();
      assertEquals(before.length, 4);
      await table.locator("th button", { hasText: "p50" }).click();
      await page.keyboard.press("Enter");
      assertEquals(await medians(), before.toReversed());
    }));

  test("shows a trial over time", (t) =>
    inPage(t, "bench.html", async ({ page }) => {
      assertEquals(await page.locator("#time canvas").count(), 4);
      await page.locator("#time-reader").selectOption({ label: "python drain, 13 B" });
      assertMatch((await page.locator("#above-rate").textContent())!, /^[\d.]+ MB\/s$/);
      await page.locator("#above").focus();
      await page.keyboard.press("ArrowRight");
      await page.keyboard.press("PageDown");
      assertMatch(
        (await readout(page, "above-readout"))!,
        /^[\d.]+ m?s: offered [\d.]+ [kMG]?B, drained [\d.]+ [kMG]?B, backlog .*, window [\d.]+ [kMG]?B$/,
      );
    }));

  for (const dark of [false, true]) {
    test(`fits a phone, ${dark ? "dark" : "light"}`, (t) =>
      inPage(t, "bench.html", async ({ page }) => {
        const [width, ground] = await page.evaluate(() => [
          document.documentElement.scrollWidth,
          getComputedStyle(document.body).backgroundColor,
        ]);
        assert(Number(width) <= 390, `${width} wide`);
        const [red = 0] = String(ground).match(/\d+/g)!.map(Number);
        assertEquals(red < 128, dark);
      }, { width: 390, dark }));
  }

  test("prints on light paper from a dark screen", (t) =>
    inPage(t, "bench.html", async ({ page }) => {
      const before = await drawn(page);
      const pdf = await page.pdf();
      assertEquals(pdf.subarray(0, 4).toString("latin1"), "%PDF");
      await page.evaluate(() => dispatchEvent(new Event("beforeprint")));
      assertNotEquals(await drawn(page), before);
      await page.evaluate(() => dispatchEvent(new Event("afterprint")));
      assertEquals(await drawn(page), before);
    }, { dark: true }));

  test("of a reader that failed is a page all the same", (t) =>
    inPage(t, "failed.html", async ({ page }) => {
      await page.locator("#curve").focus();
      for (const key of ["ArrowRight", "ArrowDown", "+", "0"]) await page.keyboard.press(key);
      await page.mouse.move(...await pointAt(page, 0.5, 0.5));
      assertEquals(
        await page.locator(".lede").textContent(),
        "No limit was found: reader-failed: it exited.",
      );
      assertEquals(await page.locator(".spot").isVisible(), false);
    }));

  test("leaves a hostile name text", (t) =>
    inPage(t, "hostile.html", async ({ page }) => {
      assertEquals(await page.locator("img").count(), 0);
      assertEquals(await page.evaluate(() => "hacked" in globalThis), false);
      assertEquals(await page.locator("#readers .name").first().textContent(), HOSTILE);
      assertEquals(await page.locator("tbody th").first().textContent(), HOSTILE);
      assertEquals(await page.locator("#command").textContent(), `limit ${HOSTILE}`);
      await page.locator("#curve").focus();
      await page.keyboard.press("ArrowRight");
      assert((await readout(page))!.startsWith(`${HOSTILE}: offered`), "the name is not text");
      await page.locator("th button").first().click();
    }));
});
