// The map: photos by two components, or by their neighbours.
function drawMap() {
  const { map, sprite } = data;
  const n = map.label.length;
  const figure = $("map-figure"), canvas = $("plot"), tip = $("tip"), legend = $("legend");
  const ctx = canvas.getContext("2d");
  const margin = { left: 46, bottom: 28 };
  let photoSize = 30;
  const chosen = new Set();  // highlighted classes; none means all
  const caught = new Uint8Array(n);  // photos inside of the lasso
  let nCaught = 0, loop = null;
  const low = (values) => values.reduce((a, b) => Math.min(a, b));
  const high = (values) => values.reduce((a, b) => Math.max(a, b));
  let box, home, view, width = 0, height = 0, unit = 1, colors = [], placed = [], focus = -1;
  figure.hidden = false;

  // Any two components: their scores are 16-bit steps, component by component.
  const packed = Uint8Array.from(atob(map.scores.steps), (character) => character.charCodeAt(0));
  const steps = new Uint16Array(packed.buffer);
  function scoresOf(k) {
    const { low: lows, high: highs } = map.scores;
    return Array.from(steps.subarray(k * n, (k + 1) * n), (at) => lows[k] + (at / 65535) * (highs[k] - lows[k]));
  }

  /** Measure the points that are laid out, and show all of them. */
  function measure() {
    box = { x0: low(map.x), x1: high(map.x), y0: low(map.y), y1: high(map.y) };
    home = { x: (box.x0 + box.x1) / 2, y: (box.y0 + box.y1) / 2, zoom: 1 };
    view = { ...home };
  }
  [map.x, map.y] = [scoresOf(0), scoresOf(1)];
  measure();

  const byNeighbours = () => $("layout")?.value === "neighbours";
  function layOut() {
    for (const [axis, first] of [["x", 0], ["y", 1]]) {
      const choice = $(`axis-${axis}`), k = Number(choice?.value ?? first);
      map[axis] = byNeighbours() ? map.neighbours[axis] : scoresOf(k);
      const share = k in map.share ? ` (${(100 * map.share[k]).toFixed(1)} % of the variance)` : "";
      $(`label-${axis}`).textContent = byNeighbours() ? `t-SNE ${first + 1}` : say(`PC ${k + 1}${share}`);
      if (choice) choice.disabled = byNeighbours();
    }
    show(-1);
    measure();
    fit();
    draw();
  }
  $("layout")?.addEventListener("change", layOut);
  for (const axis of ["x", "y"]) $(`axis-${axis}`)?.addEventListener("change", layOut);

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
    name.textContent = label || say("no label");
    const count = button.appendChild(document.createElement("small"));
    const [shown, total] = [perClass[index], map.totals[index]].map((value) => value.toLocaleString("en"));
    count.textContent = say(shown === total ? total : `${shown} of ${total} shown`);
    button.type = "button";
    button.setAttribute("aria-pressed", "false");
    button.addEventListener("click", () => highlight(index));
    return button;
  });
  searchable($("legend-search"), [...legend.children], $("legend-found"));

  function highlight(index) {
    if (index === null) chosen.clear();
    else if (!chosen.delete(index)) chosen.add(index);
    release();
    buttons.forEach((button, i) => button.setAttribute("aria-pressed", String(chosen.has(i))));
    tell();
    if (focus >= 0 && dimmed(focus)) show(-1);
    fit();
    draw();
  }

  function tell() {
    const nothing = chosen.size === 0 && nCaught === 0;
    $("clear").hidden = $("save-chosen").hidden = nothing;
    const count = nCaught || chosen.size;
    $("chosen").textContent = count ? say(`${count} chosen`) : "";
  }

  // The lasso: a loop around photos, which leave as CSV
  function release() {
    caught.fill(0);
    nCaught = 0;
  }
  function isInside(x, y) {
    let inside = false;
    for (let i = 0, j = loop.length - 1; i < loop.length; j = i, i += 1) {
      const [ax, ay] = loop[i], [bx, by] = loop[j];
      if (ay > y !== by > y && x < ((bx - ax) * (y - ay)) / (by - ay) + ax) inside = !inside;
    }
    return inside;
  }
  function close() {
    const among = [...map.x.keys()].filter((i) => !(chosen.size && !chosen.has(map.label[i])));
    release();
    for (const i of among) if (isInside(screenX(map.x[i]), screenY(map.y[i]))) { caught[i] = 1; nCaught += 1; }
    loop = null;
    tell();
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
    touch();
  }
  const dimmed = (i) => (nCaught ? !caught[i] : chosen.size > 0 && !chosen.has(map.label[i]));

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
    for (const isBehind of chosen.size || nCaught ? [true, false] : [false]) drawPoints(isBehind);
    ctx.globalAlpha = 1;
    placed = sprite && photo.complete && $("photos").checked ? placePhotos() : [];
    placed.forEach((i) => drawPhoto(i, photoSize));
    if (focus >= 0) drawFocus(style);
    if (loop) drawLoop(style);
    ctx.restore();
  }

  /** Draw the photos of chosen classes, or those behind them; squares where there are many. */
  function drawPoints(isBehind) {
    const isMany = n > 5000, size = n > 30000 ? 2 : 3;
    ctx.globalAlpha = isBehind ? 0.1 : 0.75;
    for (let i = 0; i < n; i += 1) {
      if (dimmed(i) !== isBehind) continue;
      const x = screenX(map.x[i]), y = screenY(map.y[i]);
      if (x < 0 || x > width || y < 0 || y > height) continue;
      ctx.fillStyle = colors[map.label[i]];
      if (isMany) { ctx.fillRect(x - size / 2, y - size / 2, size, size); continue; }
      ctx.beginPath();
      ctx.arc(x, y, n > 1000 ? 3 : 4.5, 0, 7);
      ctx.fill();
    }
  }

  function drawLoop(style) {
    ctx.strokeStyle = style.color;
    ctx.lineWidth = 1.5;
    ctx.setLineDash([5, 4]);
    ctx.beginPath();
    loop.forEach(([x, y]) => ctx.lineTo(x, y));
    ctx.closePath();
    ctx.stroke();
    ctx.setLineDash([]);
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
      $("tip-class").textContent = map.labels[map.label[i]] || say("no label");
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
    touch();
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

  const isLasso = () => $("lasso").getAttribute("aria-pressed") === "true";
  $("lasso").addEventListener("click", () => {
    $("lasso").setAttribute("aria-pressed", String(!isLasso()));
    touch();
  });
  const touch = () => { canvas.style.touchAction = view.zoom > 1 || isLasso() ? "none" : "pan-y"; };

  let down = null;
  canvas.addEventListener("pointerdown", (event) => {
    down = { x: event.offsetX, y: event.offsetY, moved: false };
    if (event.shiftKey || isLasso()) loop = [[down.x, down.y]];
    canvas.setPointerCapture(event.pointerId);
  });
  canvas.addEventListener("pointermove", (event) => {
    const { offsetX: x, offsetY: y } = event;
    if (!down) { const i = pick(x, y); if (i !== focus) show(i); return; }
    if (!down.moved && Math.hypot(x - down.x, y - down.y) < 5) return;
    if (loop) {
      loop.push([x, y]);
      down.moved = true;
      draw();
      return;
    }
    view = { ...view, x: view.x - (x - down.x) / unit, y: view.y + (y - down.y) / unit };
    down = { x, y, moved: true };
    show(-1);
  });
  canvas.addEventListener("pointerup", (event) => {
    if (down && !down.moved) { loop = null; show(pick(event.offsetX, event.offsetY)); }
    if (loop) close();
    down = null;
  });
  canvas.addEventListener("pointercancel", () => { down = loop = null; draw(); });
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
}

if (data.map?.label.length) drawMap();
