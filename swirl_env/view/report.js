const $ = (id) => document.getElementById(id);
const bodies = () => [...document.querySelectorAll("tbody")];

// Numbers sort by their first number ("26.3 to 43.3", "1,024", "+3.1"), words as words, a missing value ("-") last.
function value(text) {
  const number = text.replace(/,/g, "").match(/^[+-]?\d+(\.\d+)?/);
  return number ? Number(number[0]) : text === "-" ? null : text.toLowerCase();
}

function order(a, b, down) {
  if (a === null || b === null) return (a === null) - (b === null);
  const sign = typeof a === typeof b ? (a < b ? -1 : a > b ? 1 : 0) : typeof a === "number" ? -1 : 1;
  return down ? -sign : sign;
}

function sort(button) {
  const head = button.closest("th"), table = button.closest("table"), column = head.cellIndex;
  const down = head.getAttribute("aria-sort") ? head.getAttribute("aria-sort") === "ascending" : head.classList.contains("number");
  table.querySelectorAll("th[aria-sort]").forEach((other) => other.removeAttribute("aria-sort"));
  head.setAttribute("aria-sort", down ? "descending" : "ascending");
  const rows = [...table.tBodies[0].rows];
  rows.sort((a, b) => order(value(a.cells[column].textContent), value(b.cells[column].textContent), down));
  table.tBodies[0].replaceChildren(...rows);
}

function filter() {
  const words = $("search").value.toLowerCase().split(/\s+/).filter(Boolean);
  let shown = 0, all = 0;
  for (const body of bodies()) {
    for (const row of body.rows) {
      const text = row.textContent.toLowerCase();
      row.hidden = !words.every((word) => text.includes(word));
      all += 1;
      shown += row.hidden ? 0 : 1;
    }
    const folded = body.closest("details");
    if (folded && words.length) folded.open = [...body.rows].some((row) => !row.hidden);
  }
  $("count").textContent = words.length ? shown + " of " + all + " rows" : "";
}

function step(by) {
  const titles = [...document.querySelectorAll("h2")], now = titles.indexOf(document.activeElement);
  const next = titles[Math.max(0, Math.min(titles.length - 1, now < 0 && by < 0 ? 0 : now + by))];
  if (next) { next.focus(); next.scrollIntoView({ block: "start" }); }
}

function help() {
  $("keys").hidden = !$("keys").hidden;
  $("help").setAttribute("aria-expanded", String(!$("keys").hidden));
}

function key(event) {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.target.tagName === "INPUT") { if (event.key === "Escape") event.target.blur(); return; }
  const actions = { "/": () => $("search").focus(), t: theme, "?": help, n: () => step(1), p: () => step(-1) };
  if (!actions[event.key]) return;
  event.preventDefault();
  actions[event.key]();
}

document.querySelectorAll(".sort").forEach((button) => button.addEventListener("click", () => sort(button)));
$("search").addEventListener("input", filter);
$("filters").addEventListener("submit", (event) => event.preventDefault());
$("theme").addEventListener("click", theme);
$("help").addEventListener("click", help);
addEventListener("keydown", key);
document.documentElement.dataset.ready = "true";
