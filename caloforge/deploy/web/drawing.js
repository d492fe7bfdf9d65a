/* How the page draws a shower: cells in three dimensions on a canvas, and energy against depth.
 *
 * The frame is that of the mesh, mm: z' along the primary from the entrance, x' along growing
 * theta, y' along growing phi. Deposits are in MeV. A canvas needs no WebGL, and some thousands of
 * balls, painted from back to front, take it a few milliseconds.
 */
"use strict";
const drawing = (() => {

/** A number with `n` significant digits, thousands set apart from 10 000 on. */
const digits = (x, n = 3) => x
  .toLocaleString("en", {maximumSignificantDigits: n, useGrouping: x >= 1e4})
  .replace(/,/g, "\u202f");

/** A round step, 1, 2 or 5 times a power of ten, of which about `count` fit into `range`. */
const stepFor = (range, count) => {
  const raw = range / count, power = 10 ** Math.floor(Math.log10(raw)), lead = raw / power;
  return power * (lead > 5 ? 10 : lead > 2 ? 5 : lead > 1 ? 2 : 1);
};

/** The multiples of a round step from 0 to `range`. */
const ticks = (range, count) => {
  const step = stepFor(range, count);
  return Array.from({length: Math.floor(range / step * 1.0001) + 1}, (_, k) => k * step);
};

// --- energy against depth ---------------------------------------------------------------------

/** Layers of a shower as bars and of the mean as a line, MeV per slice of `dz` mm. */
const profile = (svg, layers, mean, dz) => {
  const {width: w, height: h} = svg.getBoundingClientRect();
  if (!w) return;
  const left = 46, right = w - 8, bottom = h - 32, top = 6, depth = layers.length * dz;
  const most = Math.max(...layers, ...(mean ?? [])) * 1.05 || 1;
  const x = z => left + (right - left) * z / depth, y = e => bottom - (bottom - top) * e / most;
  const bar = (e, k) => `<rect class="bar" x="${x(k * dz) + .5}" y="${y(e)}"`
    + ` width="${Math.max(x(dz) - left - 1, .5)}" height="${bottom - y(e)}"/>`;
  const line = (e, k) => `${k ? "L" : "M"}${x((k + .5) * dz)} ${y(e)}`;
  const text = (words, place, anchor = "end") => `<text ${place} text-anchor="${anchor}">${words}</text>`;
  svg.setAttribute("viewBox", `0 0 ${w} ${h}`);
  svg.innerHTML = [
    ...Array.from(layers, bar),
    mean ? `<path class="line" d="${Array.from(mean, line).join("")}"/>` : "",
    `<path class="axis" d="M${left} ${top}V${bottom}H${right}"/>`,
    ...ticks(depth, w < 420 ? 4 : 8).map(t => text(digits(t, 6), `x="${x(t)}" y="${h - 18}"`, "middle")),
    ...ticks(most, 4).map(t => text(digits(t, 6), `x="${left - 6}" y="${y(t) + 4}"`)),
    text("depth z′ [mm]", `x="${right}" y="${h - 3}"`),
    text(`MeV per ${digits(dz)} mm`, `transform="translate(10 ${top}) rotate(-90)"`),
  ].join("");
};

// --- cells in three dimensions ----------------------------------------------------------------

const HOME = {yaw: -0.55, pitch: 0.32, near: 1};
const SHADES = 32;
const KEYS = {
  ArrowLeft: [-.1, 0], ArrowRight: [.1, 0], ArrowUp: [0, .1], ArrowDown: [0, -.1],
  "+": [0, 0, 1.15], "=": [0, 0, 1.15], "-": [0, 0, 1 / 1.15],
};

/** A ball of one colour (red, green, blue; 0 to 255), lit from the upper left. */
const ball = colour => {
  const mixed = (other, share) => `rgb(${colour.map(c => Math.round(c + (other - c) * share)).join()})`;
  const canvas = Object.assign(document.createElement("canvas"), {width: 48, height: 48});
  const pen = canvas.getContext("2d"), light = pen.createRadialGradient(17, 16, 1, 24, 24, 24);
  light.addColorStop(0, mixed(255, .55));
  light.addColorStop(.45, mixed(0, 0));
  light.addColorStop(1, mixed(0, .3));
  pen.fillStyle = light;
  pen.beginPath();
  pen.arc(24, 24, 23, 0, 7);
  pen.fill();
  return canvas;
};

/** Balls from the dark to the bright end of the colours that the style sheet names. */
const balls = ramp => Array.from({length: SHADES}, (_, k) => {
  const t = k / (SHADES - 1) * (ramp.length - 1), a = Math.min(Math.floor(t), ramp.length - 2);
  return ball(ramp[a].map((c, i) => c + (ramp[a + 1][i] - c) * (t - a)));
});

/** A drawing on `canvas` that turns; `say` gets the cell that is pointed at, or nothing. */
const scene = (canvas, say) => {
  const camera = {...HOME}, pen = canvas.getContext("2d");
  let shower = null, ink = {}, sprites = [], placed = [], pending = false, touched = -1e9;

  const paint = () => {
    const style = getComputedStyle(document.documentElement);
    const value = name => style.getPropertyValue(`--${name}`).trim();
    ink = Object.fromEntries(["ink", "soft", "grid", "accent"].map(name => [name, value(name)]));
    sprites = balls(value("ramp").split(",").map(c => [1, 3, 5].map(k => parseInt(c.trim().slice(k, k + 2), 16))));
    redraw();
  };

  /** From the frame of the mesh to the canvas: x and y in pixels, pixels per mm, depth in mm. */
  const projection = (w, h) => {
    const {R, L} = shower, [sy, cy] = [Math.sin(camera.yaw), Math.cos(camera.yaw)];
    const [sp, cp] = [Math.sin(camera.pitch), Math.cos(camera.pitch)];
    const eye = 2.6 * Math.hypot(L, 2 * R), fit = Math.min(w / (1.16 * L + 1.1 * R), h / (2.6 * R + .22 * L));
    return (x, y, z) => {
      const a = z - L / 2, right = a * cy + y * sy, away = y * cy - a * sy;
      const up = x * cp + away * sp, far = away * cp - x * sp, k = fit * camera.near * eye / (eye + far);
      return [w / 2 + k * right, h / 2 - k * up, k, far];
    };
  };

  const line = points => {
    pen.beginPath();
    points.forEach(([x, y], k) => (k ? pen.lineTo(x, y) : pen.moveTo(x, y)));
    pen.stroke();
  };

  const write = (text, [x, y], colour = ink.soft) => {
    Object.assign(pen, {fillStyle: colour, textAlign: "center", textBaseline: "middle"});
    pen.fillText(text, x, y);
  };

  const drawMesh = (at, narrow) => {
    const {R, L} = shower, depths = ticks(L, narrow ? 3 : 6);
    const rim = (turn, z) => at(R * Math.cos(turn), R * Math.sin(turn), z);
    const ring = z => line(Array.from({length: 73}, (_, k) => rim(k * Math.PI / 36, z)));
    Object.assign(pen, {strokeStyle: ink.grid, lineWidth: 1, globalAlpha: .9});
    [0, L].forEach(ring);
    pen.globalAlpha = .35;
    depths.slice(1).forEach(ring);
    for (let k = 0; k < 8; k++) line([rim(k * Math.PI / 4, 0), rim(k * Math.PI / 4, L)]);
    pen.globalAlpha = 1;
  };

  const drawScales = (at, narrow) => {
    const {R, L} = shower, below = -1.03 * R;
    pen.strokeStyle = ink.soft;
    line([at(below, 0, 0), at(below, 0, L)]);
    for (const z of ticks(L, narrow ? 3 : 6)) {
      line([at(below, 0, z), at(below - .06 * R, 0, z)]);
      write(digits(z, 6), at(below - .2 * R, 0, z));
    }
    write("z′ [mm]", at(below - .45 * R, 0, L / 2));
    line([at(0, 0, L), at(R, 0, L)]);
    for (const r of ticks(R, 2.5)) {
      line([at(r, 0, L), at(r, 0, L * 1.012)]);
      write(digits(r, 6), at(r, 0, L * 1.055));
    }
    write("r [mm]", at(1.17 * R, 0, L));
  };

  /** The primary: an arrow that ends at the entrance. */
  const drawPrimary = at => {
    const {R, L} = shower, tip = at(0, 0, 0), tail = at(0, 0, -.22 * L);
    const [dx, dy] = [tip[0] - tail[0], tip[1] - tail[1]], length = Math.hypot(dx, dy) || 1;
    const [ux, uy] = [dx / length, dy / length];
    Object.assign(pen, {strokeStyle: ink.accent, fillStyle: ink.accent, lineWidth: 2});
    line([tail, tip]);
    pen.beginPath();
    pen.moveTo(tip[0], tip[1]);
    for (const side of [4, -4]) pen.lineTo(tip[0] - 10 * ux - side * uy, tip[1] - 10 * uy + side * ux);
    pen.fill();
    const [x, y] = at(.22 * R, 0, -.2 * L), half = pen.measureText(shower.primary).width / 2;
    write(shower.primary, [Math.max(x, half + 6), y], ink.ink);
  };

  const drawCells = at => {
    placed = shower.points.map(point => {
      const [x, y, k, far] = at(point.x, point.y, point.z);
      return {x, y, far, point, r: Math.max(k * shower.grain * (.1 + .65 * point.share ** 1.6), .6)};
    });
    placed.sort((a, b) => b.far - a.far);
    for (const {x, y, r, point: {share}} of placed) {
      pen.globalAlpha = .3 + .65 * share;
      pen.drawImage(sprites[Math.round((SHADES - 1) * share)], x - r, y - r, 2 * r, 2 * r);
    }
    pen.globalAlpha = 1;
  };

  const draw = () => {
    pending = false;
    const w = canvas.clientWidth, h = canvas.clientHeight, ratio = Math.min(devicePixelRatio || 1, 2);
    if (!shower || !w) return;
    const size = {width: Math.round(w * ratio), height: Math.round(h * ratio)};
    if (canvas.width !== size.width || canvas.height !== size.height) Object.assign(canvas, size);
    pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    pen.clearRect(0, 0, w, h);
    pen.font = `${w < 500 ? 11 : 12.5}px system-ui, sans-serif`;
    const at = projection(w, h);
    drawMesh(at, w < 500);
    drawScales(at, w < 500);
    drawPrimary(at);
    drawCells(at);
  };

  const redraw = () => {
    if (pending) return;
    pending = true;
    requestAnimationFrame(draw);
  };

  const turn = (yaw, pitch, near = 1) => {
    camera.yaw += yaw;
    camera.pitch = Math.min(Math.max(camera.pitch + pitch, -1.5), 1.5);
    camera.near = Math.min(Math.max(camera.near * near, .5), 6);
    redraw();
  };

  /** Turn slowly as long as `wanted()`; wait while someone holds it, or nobody sees it. */
  const drift = (wanted, before = performance.now()) => requestAnimationFrame(now => {
    if (!wanted()) return;
    const box = canvas.getBoundingClientRect(), seen = box.bottom > 0 && box.top < innerHeight;
    if (seen && performance.now() - touched > 1500) turn(Math.min(now - before, 100) * 2.5e-4, 0);
    drift(wanted, now);
  });

  const point = (x, y) => {
    const near = placed.findLast(q => Math.hypot(q.x - x, q.y - y) < Math.max(q.r, 4))?.point;
    say(near ? `${digits(near.e)} MeV at r ${near.cell[0]}, φ ${near.cell[1]}, z ${near.cell[2]}` : "");
  };

  const fingers = new Map();
  const apart = () => { const [a, b] = fingers.values(); return Math.hypot(a.x - b.x, a.y - b.y); };

  const drag = event => {
    const held = fingers.get(event.pointerId), here = {x: event.offsetX, y: event.offsetY};
    if (!held) { point(here.x, here.y); return; }
    const before = fingers.size === 2 ? apart() : 0;
    fingers.set(event.pointerId, here);
    touched = performance.now();
    if (before) turn(0, 0, apart() / before);
    else turn((here.x - held.x) * .008, (here.y - held.y) * .008);
  };

  canvas.addEventListener("pointerdown", event => {
    canvas.setPointerCapture(event.pointerId);
    fingers.set(event.pointerId, {x: event.offsetX, y: event.offsetY});
  });
  for (const end of ["pointerup", "pointercancel"]) canvas.addEventListener(end, e => fingers.delete(e.pointerId));
  canvas.addEventListener("pointermove", drag);
  // Only in focus: elsewhere the wheel belongs to the page.
  canvas.addEventListener("wheel", event => {
    if (document.activeElement !== canvas) return;
    event.preventDefault();
    turn(0, 0, Math.exp(-event.deltaY * .001));
  }, {passive: false});
  canvas.addEventListener("keydown", event => {
    if (event.key !== "Home" && !KEYS[event.key]) return;
    event.preventDefault();
    touched = performance.now();
    if (event.key === "Home") turn(HOME.yaw - camera.yaw, HOME.pitch - camera.pitch, HOME.near / camera.near);
    else turn(...KEYS[event.key]);
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", paint);
  new ResizeObserver(redraw).observe(canvas);
  paint();

  /** Show a shower: `points` (mm, MeV, share of the scale), radius R and length L of the mesh, the
   * `grain` of its cells (mm) and the words for its primary. */
  const show = what => { shower = what; redraw(); };
  return {show, drift, camera};
};

return {digits, profile, scene};
})();
