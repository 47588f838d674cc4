"use strict";
(() => {
  const $ = (id) => document.getElementById(id);
  const data = JSON.parse($("data").textContent);

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
      status.textContent = wanted ? `${n} of ${items.length}` : "";
    });
  }
  searchable($("class-search"), document.querySelectorAll("#classes .class-card"), $("class-found"), $("more-classes"));
  searchable($("rejected-search"), document.querySelectorAll("#rejected tbody tr"), $("rejected-found"));
  searchable($("scores-search"), document.querySelectorAll("#scores tbody tr"), $("scores-found"));

  function addButton(parent, text, onClick) {
    const button = parent.appendChild(document.createElement("button"));
    button.type = "button";
    button.textContent = text;
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
    button.textContent = "Copied";
    setTimeout(() => { button.textContent = before; }, 1500);
  }

  for (const command of document.querySelectorAll(".command")) {
    const button = addButton(command.parentNode, "Copy", (it) => copy(command.textContent, it));
    button.classList.add("copy");
    command.after(button);
  }

  // Tables whose rows a click on a heading sorts
  const number = (text) => (/^[<>\s]*[\d.,]+\D*$/.test(text) ? parseFloat(text.replace(/[^\d.]/g, "")) : NaN);
  const compare = (a, b) => (number(a) - number(b) || a.localeCompare(b, undefined, { numeric: true }));
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

  if (!data.map || !data.map.x.length) return;
  const { map, sprite } = data;
  const n = map.x.length;
  const figure = $("map-figure"), canvas = $("plot"), tip = $("tip"), legend = $("legend");
  const ctx = canvas.getContext("2d");
  const margin = { left: 46, bottom: 28 };
  let photoSize = 30;
  const chosen = new Set();  // highlighted classes; none means all
  const low = (values) => values.reduce((a, b) => Math.min(a, b));
  const high = (values) => values.reduce((a, b) => Math.max(a, b));
  const box = { x0: low(map.x), x1: high(map.x), y0: low(map.y), y1: high(map.y) };
  const home = { x: (box.x0 + box.x1) / 2, y: (box.y0 + box.y1) / 2, zoom: 1 };
  let view = { ...home }, width = 0, height = 0, unit = 1, colors = [], placed = [], focus = -1;
  figure.hidden = false;

  // Legend
  const perClass = map.labels.map(() => 0);
  map.label.forEach((index) => { perClass[index] += 1; });
  const buttons = map.labels.map((label, index) => {
    const button = legend.appendChild(document.createElement("li")).appendChild(document.createElement("button"));
    const dot = button.appendChild(document.createElement("i"));
    dot.className = "dot";
    dot.style.cssText = `--i:${index};--j:${index % 3}`;
    const name = button.appendChild(document.createElement("bdi"));
    name.className = "name";
    name.textContent = label || "no label";
    const count = button.appendChild(document.createElement("small"));
    const [shown, total] = [perClass[index], map.totals[index]].map((value) => value.toLocaleString("en"));
    count.textContent = shown === total ? total : `${shown} of ${total} shown`;
    button.type = "button";
    button.setAttribute("aria-pressed", "false");
    button.addEventListener("click", () => highlight(index));
    return button;
  });
  searchable($("legend-search"), [...legend.children], $("legend-found"));

  function highlight(index) {
    if (index === null) chosen.clear();
    else if (!chosen.delete(index)) chosen.add(index);
    buttons.forEach((button, i) => button.setAttribute("aria-pressed", String(chosen.has(i))));
    $("clear").hidden = chosen.size === 0;
    $("chosen").textContent = chosen.size ? `${chosen.size} chosen` : "";
    $("save-chosen").hidden = chosen.size === 0;
    if (focus >= 0 && dimmed(focus)) show(-1);
    fit();
    draw();
  }

  /** Show the chosen classes as large as they fit, or say why there is nothing to show. */
  function fit() {
    const points = [...map.x.keys()].filter((i) => chosen.size && !dimmed(i));
    $("map-empty").hidden = !chosen.size || points.length > 0;
    view = { ...home };
    if (!points.length) return;
    const xs = points.map((i) => map.x[i]), ys = points.map((i) => map.y[i]);
    const [x0, x1, y0, y1] = [low(xs), high(xs), low(ys), high(ys)];
    const smaller = Math.max((x1 - x0) / (box.x1 - box.x0 || 1), (y1 - y0) / (box.y1 - box.y0 || 1));
    view = { x: (x0 + x1) / 2, y: (y0 + y1) / 2, zoom: Math.max(1, Math.min(10, 0.9 / (smaller || 1))) };
    canvas.style.touchAction = view.zoom > 1 ? "none" : "pan-y";
  }
  const dimmed = (i) => chosen.size > 0 && !chosen.has(map.label[i]);

  // Drawing. One unit of both components has the same length on the screen.
  const screenX = (x) => margin.left + (width - margin.left) / 2 + (x - view.x) * unit;
  const screenY = (y) => (height - margin.bottom) / 2 - (y - view.y) * unit;
  const photo = new Image();
  photo.addEventListener("load", draw);
  if (sprite) photo.src = getComputedStyle($("tip-tile")).backgroundImage.slice(5, -2);

  function resize() {
    const scale = devicePixelRatio || 1;
    width = canvas.clientWidth;
    height = canvas.clientHeight;
    photoSize = width < 500 ? 22 : 30;
    canvas.width = Math.round(width * scale);
    canvas.height = Math.round(height * scale);
    ctx.setTransform(scale, 0, 0, scale, 0, 0);
    colors = buttons.map((button) => getComputedStyle(button.firstChild).backgroundColor);
    draw();
  }

  function draw() {
    const style = getComputedStyle(canvas);
    const w = width - margin.left, h = height - margin.bottom, pad = photoSize;
    unit = view.zoom * Math.min((w - 2 * pad) / (box.x1 - box.x0 || 1), (h - 2 * pad) / (box.y1 - box.y0 || 1));
    ctx.fillStyle = style.backgroundColor;
    ctx.fillRect(0, 0, width, height);
    drawAxes(style, w, h);
    ctx.save();
    ctx.beginPath();
    ctx.rect(margin.left, 0, w, h);
    ctx.clip();
    const order = [...map.x.keys()].sort((a, b) => dimmed(b) - dimmed(a));
    for (const i of order) {
      ctx.globalAlpha = dimmed(i) ? 0.1 : 0.75;
      ctx.fillStyle = colors[map.label[i]];
      ctx.beginPath();
      ctx.arc(screenX(map.x[i]), screenY(map.y[i]), n > 1000 ? 3 : 4.5, 0, 7);
      ctx.fill();
    }
    ctx.globalAlpha = 1;
    placed = sprite && photo.complete && $("photos").checked ? placePhotos() : [];
    placed.forEach((i) => drawPhoto(i, photoSize));
    if (focus >= 0) drawFocus(style);
    ctx.restore();
  }

  function drawAxes(style, w, h) {
    const steps = [1, 2, 5, 10].map((s) => s * 10 ** Math.floor(Math.log10(90 / unit)));
    const step = steps.find((s) => s * unit >= 60) ?? steps[3];
    ctx.strokeStyle = style.getPropertyValue("--line");
    ctx.fillStyle = style.getPropertyValue("--muted");
    ctx.font = `11px ${style.fontFamily}`;
    ctx.lineWidth = 1;
    const tick = (value) => String(+value.toPrecision(6));
    ctx.textAlign = "center";
    for (let x = Math.ceil((view.x - w / 2 / unit) / step) * step; screenX(x) < width; x += step) {
      ctx.strokeRect(Math.round(screenX(x)) + 0.5, -1, 0, h + 1);
      if (screenX(x) < width - 14) ctx.fillText(tick(x), screenX(x), h + 18);
    }
    ctx.textAlign = "right";
    for (let y = Math.ceil((view.y - h / 2 / unit) / step) * step; screenY(y) > 0; y += step) {
      ctx.strokeRect(margin.left, Math.round(screenY(y)) + 0.5, w, 0);
      if (screenY(y) > 10) ctx.fillText(tick(y), margin.left - 8, screenY(y) + 4);
    }
  }

  /** Choose photos that do not overlap. Panning does not change the choice; zooming in adds some. */
  function placePhotos() {
    const cells = new Map(), free = [];
    for (let i = 0; i < n; i += 1) {
      if (map.thumbnail[i] < 0 || dimmed(i)) continue;
      const x = (map.x[i] * unit) / photoSize, y = (map.y[i] * unit) / photoSize;
      const column = Math.floor(x), row = Math.floor(y);
      let isFree = true;
      for (let c = column - 1; c <= column + 1; c += 1) {
        for (let r = row - 1; r <= row + 1; r += 1) {
          const other = cells.get(`${c},${r}`);
          if (other && Math.abs(other[0] - x) < 1.12 && Math.abs(other[1] - y) < 1.12) isFree = false;
        }
      }
      if (isFree) { cells.set(`${column},${row}`, [x, y]); free.push(i); }
    }
    return free;
  }

  function drawPhoto(i, size) {
    const t = map.thumbnail[i], x = screenX(map.x[i]) - size / 2, y = screenY(map.y[i]) - size / 2;
    ctx.fillStyle = colors[map.label[i]];
    ctx.beginPath();
    ctx.roundRect(x - 2, y - 2, size + 4, size + 4, 6);
    ctx.fill();
    ctx.save();
    ctx.beginPath();
    ctx.roundRect(x, y, size, size, 4);
    ctx.clip();
    const left = (t % sprite.columns) * sprite.tile, top = Math.floor(t / sprite.columns) * sprite.tile;
    ctx.drawImage(photo, left, top, sprite.tile, sprite.tile, x, y, size, size);
    ctx.restore();
  }

  function drawFocus(style) {
    const r = placed.includes(focus) ? photoSize / 2 + 6 : 8;
    ctx.strokeStyle = style.color;
    ctx.lineWidth = 2.5;
    ctx.beginPath();
    ctx.roundRect(screenX(map.x[focus]) - r, screenY(map.y[focus]) - r, 2 * r, 2 * r, r === 8 ? r : 9);
    ctx.stroke();
  }

  // The photo under the pointer, or reached by the arrow keys
  function pick(px, py) {
    const half = photoSize / 2 + 2;
    const onTop = placed.findLast((i) => Math.abs(screenX(map.x[i]) - px) < half && Math.abs(screenY(map.y[i]) - py) < half);
    return onTop ?? nearest((dx, dy) => Math.hypot(dx, dy), px, py, 14);
  }

  function nearest(measure, px, py, limit = Infinity) {
    let best = -1, least = limit;
    for (let i = 0; i < n; i += 1) {
      if (dimmed(i) || i === focus && limit === Infinity) continue;
      const d = measure(screenX(map.x[i]) - px, screenY(map.y[i]) - py);
      if (d < least) { least = d; best = i; }
    }
    return best;
  }

  function show(i) {
    focus = i;
    tip.hidden = i < 0;
    if (i >= 0) {
      const t = map.thumbnail[i];
      $("tip-tile").hidden = !sprite || t < 0;
      if (sprite && t >= 0) $("tip-tile").style.cssText = `--c:${t % sprite.columns};--r:${Math.floor(t / sprite.columns)}`;
      $("tip-class").textContent = map.labels[map.label[i]] || "no label";
      $("tip-name").textContent = map.name[i];
      const x = screenX(map.x[i]), y = screenY(map.y[i]), w = tip.offsetWidth, h = tip.offsetHeight;
      const beside = x + 22 + w < width ? x + 22 : x - 22 - w;
      const level = beside >= 0 ? y - h / 2 : y < height / 2 ? y + 26 : y - 26 - h;  // no room: above or below
      tip.style.left = `${Math.max(0, beside)}px`;
      tip.style.top = `${Math.max(0, Math.min(level, height - h))}px`;
    }
    draw();
  }

  function zoom(factor, px = screenX(view.x), py = screenY(view.y)) {
    const grown = Math.max(1, Math.min(60, view.zoom * factor)), k = (1 - view.zoom / grown) / unit;
    view = { x: view.x + (px - screenX(view.x)) * k, y: view.y - (py - screenY(view.y)) * k, zoom: grown };
    if (grown === 1) view = { ...home };
    canvas.style.touchAction = grown > 1 ? "none" : "pan-y";
    draw();
    show(focus >= 0 && inView(focus) ? focus : -1);
  }

  function inView(i) {
    const x = screenX(map.x[i]), y = screenY(map.y[i]);
    return x >= margin.left && x <= width && y >= 0 && y <= height - margin.bottom;
  }

  function step(dx, dy) {
    const inside = focus >= 0;
    const px = inside ? screenX(map.x[focus]) : screenX(view.x), py = inside ? screenY(map.y[focus]) : screenY(view.y);
    const ahead = (x, y) => x * dx + y * dy > 0 && Math.abs(x * dy) + Math.abs(y * dx) <= x * dx + y * dy;
    const next = nearest((x, y) => (!inside || ahead(x, y) ? Math.hypot(x, y) : Infinity), px, py);
    if (next < 0) return;
    if (!inView(next)) view = { ...view, x: map.x[next], y: map.y[next] };
    show(next);
  }

  const keys = {
    ArrowLeft: () => step(-1, 0), ArrowRight: () => step(1, 0), ArrowUp: () => step(0, -1), ArrowDown: () => step(0, 1),
    "+": () => zoom(1.5), "=": () => zoom(1.5), "-": () => zoom(1 / 1.5), 0: () => zoom(0),
    Enter: () => focus >= 0 && highlight(map.label[focus]), Escape: () => { show(-1); highlight(null); },
  };
  canvas.addEventListener("keydown", (event) => {
    if (!keys[event.key] || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    keys[event.key]();
  });

  let down = null;
  canvas.addEventListener("pointerdown", (event) => {
    down = { x: event.offsetX, y: event.offsetY, moved: false };
    canvas.setPointerCapture(event.pointerId);
  });
  canvas.addEventListener("pointermove", (event) => {
    const { offsetX: x, offsetY: y } = event;
    if (!down) { const i = pick(x, y); if (i !== focus) show(i); return; }
    if (!down.moved && Math.hypot(x - down.x, y - down.y) < 5) return;
    view = { ...view, x: view.x - (x - down.x) / unit, y: view.y + (y - down.y) / unit };
    down = { x, y, moved: true };
    show(-1);
  });
  canvas.addEventListener("pointerup", (event) => {
    if (down && !down.moved) show(pick(event.offsetX, event.offsetY));
    down = null;
  });
  canvas.addEventListener("pointercancel", () => { down = null; });
  canvas.addEventListener("pointerleave", (event) => { if (event.pointerType === "mouse" && !down) show(-1); });
  canvas.addEventListener("blur", () => show(-1));
  canvas.addEventListener("dblclick", (event) => zoom(2, event.offsetX, event.offsetY));
  canvas.addEventListener("wheel", (event) => {
    if (!event.ctrlKey && !event.metaKey) return;  // plain scrolling belongs to the page
    event.preventDefault();
    zoom(event.deltaY < 0 ? 1.2 : 1 / 1.2, event.offsetX, event.offsetY);
  }, { passive: false });
  $("zoom-in").addEventListener("click", () => zoom(1.5));
  $("zoom-out").addEventListener("click", () => zoom(1 / 1.5));
  $("zoom-home").addEventListener("click", () => { view = { ...home }; zoom(0); });
  $("save-chosen").addEventListener("click", () => save("chosen", [...map.name.keys()].filter((i) => !dimmed(i)).map((i) => pathOf(map.name[i]))));
  $("clear").addEventListener("click", () => { canvas.focus({ preventScroll: true }); highlight(null); });
  $("photos")?.addEventListener("change", draw);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", resize);
  new ResizeObserver(resize).observe(canvas);
})();
