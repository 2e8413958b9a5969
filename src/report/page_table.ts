/// <reference lib="dom" />
/** Sorts a page's tables when a column head is clicked. */

/**
 * Makes every table sortable. Refers to nothing outside itself, because pages embed its source
 * text.
 */
export function sortTables(): void {
  for (const table of document.querySelectorAll("table")) {
    const body = table.tBodies[0];
    const heads = [...table.querySelectorAll<HTMLElement>("th[scope=col]")];
    heads.forEach((head, column) => {
      head.querySelector("button")?.addEventListener("click", () => {
        const down = head.getAttribute("aria-sort") === "ascending";
        for (const each of heads) each.removeAttribute("aria-sort");
        head.setAttribute("aria-sort", down ? "descending" : "ascending");
        const keyOf = (row: HTMLTableRowElement) => row.cells[column]?.dataset.sort;
        const rows = [...body?.rows ?? []].sort((a, b) => {
          const left = keyOf(a);
          const right = keyOf(b);
          // Missing values come last in both orders.
          if (left === undefined || right === undefined) {
            return Number(left === undefined) - Number(right === undefined);
          }
          const [x, y] = [Number(left), Number(right)];
          const order = Number.isNaN(x) || Number.isNaN(y)
            ? left.localeCompare(right, "en", { numeric: true })
            : x === y
            ? 0
            : x - y;
          return down ? -order : order;
        });
        body?.append(...rows);
      });
    });
  }
}
