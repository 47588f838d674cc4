
/** Let a search box hide the items whose .name, or whose text, lacks what is typed. */
function searchable(box, items, status, more) {
  if (!box) return;
  box.closest("[hidden]")?.removeAttribute("hidden");
  box.addEventListener("input", () => {
    const wanted = box.value.trim().toLowerCase();
    let n = 0;
    for (const item of items) {
      const text = (item.querySelector(".name") ?? item).textContent;
      item.hidden = !text.toLowerCase().includes(wanted);
      n += !item.hidden;
    }
    if (more) more.open = more.firstElementChild.hidden = wanted !== "";
    status.textContent = wanted ? say(`${n} of ${items.length}`) : "";
  });
}
searchable($("class-search"), document.querySelectorAll("#classes .class-card"), $("class-found"), $("more-classes"));
searchable($("rejected-search"), document.querySelectorAll("#rejected tbody tr"), $("rejected-found"));
searchable($("scores-search"), document.querySelectorAll("#scores tbody tr"), $("scores-found"));

function addButton(parent, text, onClick) {
  const button = parent.appendChild(document.createElement("button"));
  button.type = "button";
  button.textContent = say(text);
  button.addEventListener("click", () => onClick(button));
  return button;
}

async function copy(text, button) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {  // no permission: the old way, by a selection
    const area = button.parentNode.appendChild(document.createElement("textarea"));
    area.value = text;
    area.select();
    document.execCommand("copy");
    area.remove();
  }
  const before = button.textContent;
  button.textContent = say("Copied");
  setTimeout(() => { button.textContent = before; }, 1500);
}

for (const command of document.querySelectorAll(".command")) {
  const button = addButton(command.parentNode, "Copy", (it) => copy(command.textContent, it));
  button.classList.add("copy");
  command.after(button);
}

// Tables whose rows a click on a heading sorts
const compare = (a, b) => (parse(a) - parse(b) || a.localeCompare(b, undefined, { numeric: true }));
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells], body = table.tBodies[0];
  const key = (row, column) => row.cells[column].dataset.value ?? row.cells[column].textContent.trim();
  heads.forEach((head, column) => {
    const text = head.textContent;
    head.textContent = "";
    addButton(head, text, () => {
      const rising = head.getAttribute("aria-sort") !== "ascending";
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", rising ? "ascending" : "descending");
      const rows = [...body.rows].sort((a, b) => compare(key(a, column), key(b, column)));
      body.append(...(rising ? rows : rows.reverse()));
    });
  });
}

// Lists of photos leave as CSV: one column, the path.
function save(name, paths) {
  const rows = ["path", ...new Set(paths)].map((path) => `"${path.replaceAll('"', '""')}"\r\n`);
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob(rows, { type: "text/csv" }));
  link.download = `${name}.csv`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}
for (const list of document.querySelectorAll("[data-csv]")) {
  const paths = () => [...list.querySelectorAll("[data-path]")].filter((item) => !item.hidden).map((item) => item.dataset.path);
  const bar = document.createElement("p");
  bar.className = "tools";
  list.before(bar);
  addButton(bar, "Save the paths as CSV", () => save(list.dataset.csv, paths()));
}

// A thumbnail enlarges and tells its path.
const dialog = $("photo");
const isWhole = (name) => name.startsWith("/") || name.includes("://");  // of another source
const pathOf = (name) => (isWhole(name) ? name : `${data.source.replace(/\/$/, "")}/${name}`);
function enlarge(tile) {
  dialog.querySelector(".tile").style.cssText = tile.style.cssText;
  $("photo-path").textContent = pathOf(tile.ariaLabel);
  dialog.showModal();
}
if (dialog) {
  $("photo-copy").addEventListener("click", (event) => copy($("photo-path").textContent, event.target));
  $("photo-close").addEventListener("click", () => dialog.close());
  dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });
  for (const group of document.querySelectorAll(".tiles")) {
    const tiles = [...group.querySelectorAll(".tile")];
    group.setAttribute("role", "group");  // no picture any more
    tiles.forEach((tile, i) => {
      const at = (name) => Number(tile.style.getPropertyValue(name));
      tile.setAttribute("role", "button");
      tile.ariaLabel = data.tiles[at("--r") * data.sprite.columns + at("--c")];
      tile.title = tile.ariaLabel;
      tile.tabIndex = i ? -1 : 0;  // one stop for the Tab key, then the arrow keys
    });
    group.addEventListener("click", (event) => { if (tiles.includes(event.target)) enlarge(event.target); });
    group.addEventListener("keydown", (event) => {
      const i = tiles.indexOf(event.target), step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
      if (event.key === "Enter" || event.key === " ") enlarge(event.target);
      else if (step) tiles.at((i + step) % tiles.length).focus();
      else return;
      event.preventDefault();
    });
  }
}

// A cell of the confusion matrix leads to the photos that were confused.
const pairs = new Map([...document.querySelectorAll("[data-pair]")].map((card) => [card.dataset.pair, card]));
for (const cell of document.querySelectorAll(".matrix rect")) {
  const card = pairs.get(cell.dataset.cell);
  if (!card) continue;
  cell.classList.add("leads");
  cell.addEventListener("click", () => {
    card.tabIndex = -1;
    card.scrollIntoView({ block: "center" });
    card.focus({ preventScroll: true });
  });
}
