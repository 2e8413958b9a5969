/// <reference lib="dom" />
/** The main function of a page's script: creates the charts, and connects them to the controls. */
import type uPlot from "uplot";
import type { LogScale } from "./log_scale.ts";
import type { makeCurveChart } from "./page_curve.ts";
import type { PageData } from "./page_data.ts";
import type { sortTables } from "./page_table.ts";
import type { makeTimeChart, TimeChart } from "./page_time.ts";

export interface PageParts {
  uPlot: typeof uPlot;
  scale: LogScale;
  makeCurveChart: typeof makeCurveChart;
  makeTimeChart: typeof makeTimeChart;
  sortTables: typeof sortTables;
}

/** Runs the page. Refers only to its parameters, because pages embed its source text. */
export function runPage({ uPlot, scale, makeCurveChart, makeTimeChart, sortTables }: PageParts) {
  const byId = (id: string) => document.getElementById(id);
  const { readers, sizes, views }: PageData = JSON.parse(byId("data")!.textContent!);
  const color = (name: string) =>
    getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const rate = (value: number) => scale.formatShort(value, "B/s", 4);
  const redraws: (() => void)[] = [];
  sortTables();

  if (byId("curve") !== null) runCurve();
  if (byId("time-reader") !== null) runTime();

  function runCurve(): void {
    const switches = [...document.querySelectorAll<HTMLInputElement>("#readers input")];
    const sizeSwitches = [...document.querySelectorAll<HTMLInputElement>("#sizes input")];
    let size = sizes[0]!;
    const readout = byId("readout")!;
    const hint = readout.textContent;
    const chart = makeCurveChart({
      uPlot,
      scale,
      container: byId("curve")!,
      readers,
      first: views[size]!,
      color,
      onSelect(reader, point) {
        const { name, curve } = readers[reader]!;
        const { offered, drained, verdict, purpose, seconds } = curve.points[point]!;
        const share = (100 * drained / offered).toPrecision(3);
        readout.textContent = `${name}: offered ${rate(offered)}, drained ${rate(drained)} ` +
          `(${share} %); ${verdict}, ${purpose} trial of ${scale.formatShort(seconds, "s", 3)}`;
      },
      onReset: reset,
    });
    function reset(): void {
      chart.view(views[size]!);
      readout.textContent = hint;
    }
    function update(): void {
      const shown = new Set<number>();
      switches.forEach((each, index) => {
        const hasSize = readers[index]!.size === size;
        each.closest("label")!.hidden = !hasSize;
        if (hasSize && each.checked) shown.add(index);
      });
      chart.show(shown);
    }
    for (const each of switches) each.addEventListener("change", update);
    for (const each of sizeSwitches) {
      each.addEventListener("change", () => {
        size = each.value;
        update();
        reset();
      });
    }
    const setAll = (on: boolean) => {
      for (const each of switches) if (!each.closest("label")!.hidden) each.checked = on;
      update();
    };
    byId("all")?.addEventListener("click", () => setAll(true));
    byId("none")?.addEventListener("click", () => setAll(false));
    byId("zoom-in")!.addEventListener("click", () => chart.zoom(1.6));
    byId("zoom-out")!.addEventListener("click", () => chart.zoom(1 / 1.6));
    byId("zoom-reset")!.addEventListener("click", reset);
    update();
    redraws.push(() => chart.redraw());
  }

  function runTime(): void {
    const select = byId("time-reader") as HTMLSelectElement;
    let charts: TimeChart[] = [];
    const draw = () => {
      for (const each of charts) each.destroy();
      const { series, style } = readers[Number(select.value)]!;
      byId("time")!.style.setProperty("--hue", `var(--h${style.hue})`);
      charts = (["below", "above"] as const).map((which) => {
        const readout = byId(`${which}-readout`)!;
        readout.textContent = "";
        byId(`${which}-rate`)!.textContent = rate(series![which].rate);
        return makeTimeChart({
          uPlot,
          scale,
          container: byId(which)!,
          series: series![which],
          hue: `--h${style.hue}`,
          color,
          onSelect: (text) => readout.textContent = text,
        });
      });
    };
    select.addEventListener("change", draw);
    draw();
    redraws.push(() => {
      for (const each of charts) each.redraw();
    });
  }

  byId("copy")?.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(byId("command")!.textContent!);
      byId("copied")!.textContent = "copied";
    } catch {
      // A browser may forbid copying to a page from a file: select the text for the user to copy.
      getSelection()?.selectAllChildren(byId("command")!);
      byId("copied")!.textContent = "selected";
    }
  });

  const redraw = () => {
    for (const each of redraws) each();
  };
  let width = 0;
  new ResizeObserver(() => {
    if (document.documentElement.clientWidth === width) return;
    width = document.documentElement.clientWidth;
    redraw();
  }).observe(document.documentElement);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
  // Print in light colours, even where the screen is dark.
  const setPaper = (on: boolean) => () => {
    document.documentElement.classList.toggle("paper", on);
    redraw();
  };
  addEventListener("beforeprint", setPaper(true));
  addEventListener("afterprint", setPaper(false));
}
