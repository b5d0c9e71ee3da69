"use strict";
(() => {
  const sortable = (table) => {
    const body = table.tBodies[0];
    const heads = [...table.tHead.rows[0].cells];
    const key = (row, index) => {
      const cell = row.cells[index];
      return cell.dataset.key === undefined ? cell.textContent.trim() : cell.dataset.key === "" ? NaN : Number(cell.dataset.key);
    };
    const before = (a, b) => {
      if (typeof a === "string") return a.localeCompare(b, "en", { numeric: true });
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
  };
  // every word must be in the row; the box is made here, so that without scripts there is none
  const filtered = (section) => {
    const tables = [...section.querySelectorAll("table")];
    const rows = tables.flatMap((table) => [...table.tBodies[0].rows]);
    const box = Object.assign(document.createElement("input"), { type: "search", placeholder: section.dataset.filter });
    box.setAttribute("aria-label", section.dataset.filter);
    const told = Object.assign(document.createElement("span"), { className: "small" });
    told.setAttribute("role", "status");
    const bar = Object.assign(document.createElement("p"), { className: "filter" });
    bar.append(box, told);
    section.querySelector("h2").after(bar);
    box.addEventListener("input", () => {
      const words = box.value.toLowerCase().split(/\s+/);
      rows.forEach((row) => (row.hidden = !words.every((word) => row.textContent.toLowerCase().includes(word))));
      tables.forEach((table) => (table.hidden = [...table.tBodies[0].rows].every((row) => row.hidden)));
      // what is found must not stay folded away
      section.querySelectorAll("details.more").forEach((more) => (more.open = box.value.trim() !== ""));
      const shown = rows.filter((row) => !row.hidden).length;
      told.textContent = box.value.trim() ? `${shown} of ${rows.length} rows` : "";
    });
  };
  document.querySelectorAll("table.sortable").forEach(sortable);
  document.querySelectorAll("section[data-filter]").forEach(filtered);
})();
