"use strict";

// A heading sorts the bodies of its table: numbers from the largest, words from A; a second click reverses; "-" stays last.
function sort(heading) {
  const table = heading.closest("table");
  const word = heading.classList.contains("word");
  const first = word ? "ascending" : "descending";
  const other = word ? "descending" : "ascending";
  const order = heading.getAttribute("aria-sort") === first ? other : first;
  for (const each of heading.parentNode.children) each.removeAttribute("aria-sort");
  heading.setAttribute("aria-sort", order);
  const sign = order === "ascending" ? 1 : -1;
  const keyed = [...table.tBodies].map((body) => {
    const text = body.rows[0].cells[heading.cellIndex].textContent.trim();
    const key = word ? text : parseFloat(text.replaceAll(",", ""));
    return { body, key, last: text === "-" || text === "" || Number.isNaN(key) };
  });
  keyed.sort((a, b) => a.last - b.last || (a.last ? 0 : sign * (word ? a.key.localeCompare(b.key) : a.key - b.key)));
  table.append(...keyed.map((each) => each.body));
}

for (const button of document.querySelectorAll(".sortable th button")) {
  button.addEventListener("click", () => sort(button.parentNode));
}

// A link to a row opens it; a link within the row opens and closes it.
function target(link) {
  return document.getElementById((link.getAttribute("href") || link.getAttribute("xlink:href")).slice(1));
}

function show(row) {
  row.hidden = false;
  row.classList.add("open");
  row.scrollIntoView({ block: "nearest" });
}

document.addEventListener("click", (event) => {
  const link = event.target.closest("a[*|href^='#row-']");
  if (!link) return;
  const row = target(link);
  event.preventDefault();
  if (row.contains(link)) row.classList.toggle("open");
  else show(row);
});

if (location.hash.startsWith("#row-")) {
  const row = document.getElementById(location.hash.slice(1));
  if (row) show(row);
}

document.getElementById("filter").addEventListener("input", (event) => {
  const words = event.target.value.toLowerCase().split(/\s+/);
  for (const body of document.getElementById("rows").tBodies) {
    const text = body.rows[0].textContent.toLowerCase();
    body.hidden = !words.every((word) => text.includes(word));
  }
});

// Figures: a tip names the row of the mark under the mouse.
const tip = document.getElementById("tip");
for (const mark of document.querySelectorAll(".drawing a[*|href^='#row-']")) {
  const row = target(mark);
  mark.addEventListener("mousemove", (event) => {
    tip.textContent = row.dataset.name;
    tip.hidden = false;
    tip.style.left = `${Math.min(event.clientX + 12, innerWidth - tip.offsetWidth - 12)}px`;
    tip.style.top = `${event.clientY + 14}px`;
  });
  mark.addEventListener("mouseleave", () => {
    tip.hidden = true;
  });
}
