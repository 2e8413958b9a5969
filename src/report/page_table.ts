/// <reference lib="dom" />
/** In a page: tables whose heads sort them. */

/** Makes every table of the page sortable. Needs nothing else: pages take it along as text. */
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
          // What is not known comes last, whatever the order.
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
