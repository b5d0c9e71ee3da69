"use strict";
(() => {
  document.querySelectorAll("table.sortable").forEach((table) => {
    const body = table.tBodies[0];
    const heads = [...table.tHead.rows[0].cells];
    const key = (row, index) => {
      const cell = row.cells[index];
      return cell.dataset.key === undefined ? cell.textContent.trim() : cell.dataset.key === "" ? NaN : Number(cell.dataset.key);
    };
    const before = (a, b) => {
      if (typeof a === "string") return a.localeCompare(b);
      return Number.isNaN(a) ? (Number.isNaN(b) ? 0 : 1) : Number.isNaN(b) ? -1 : a - b;
    };
    heads.forEach((head, index) => {
      const button = document.createElement("button");
      button.append(...head.childNodes);
      head.append(button);
      button.addEventListener("click", () => {
        const down = head.getAttribute("aria-sort") === "ascending";
        heads.forEach((other) => other.removeAttribute("aria-sort"));
        head.setAttribute("aria-sort", down ? "descending" : "ascending");
        const rows = [...body.rows].sort((a, b) => before(key(a, index), key(b, index)) * (down ? -1 : 1));
        body.append(...rows);
      });
    });
  });
})();
