/* Showers in a browser: noise from a seed, a model in ONNX Runtime Web, a drawing that turns.
 *
 * Units: MeV, mm, rad; the sliders of energy speak GeV. Voxels are (R, PHI, Z), Z fastest, in the
 * frame of the mesh: z' along the primary, x' along growing theta, y' along growing phi, bin 0 of
 * phi starts at -pi. The page's test and the curious find the parts under window.caloforge.
 */
"use strict";
(() => {
const CUT = 5e-4; // MeV: a voxel below is no hit, as in caloforge's evaluation
const SEEDS = 2 ** 32;
const PARTICLES = {11: ["electron", "e⁻"], "-11": ["positron", "e⁺"], 22: ["photon", "γ"]};
const $ = id => document.getElementById(id);
const about = JSON.parse($("about").textContent);

// --- noise ------------------------------------------------------------------------------------

/** xoshiro128** from a state of four words; every call gives 32 bits. */
const xoshiro = state => {
  const s = Uint32Array.from(state), turned = (x, k) => (x << k) | (x >>> (32 - k));
  return () => {
    const out = Math.imul(turned(Math.imul(s[1], 5), 7), 9) >>> 0, t = s[1] << 9;
    s[2] ^= s[0]; s[3] ^= s[1]; s[1] ^= s[2]; s[0] ^= s[3]; s[2] ^= t; s[3] = turned(s[3], 11);
    return out;
  };
};

/** Four words of state: multiples of the golden ratio after the seed, through MurmurHash3's end. */
const stateOf = seed => [1, 2, 3, 4].map(k => {
  let h = (seed + Math.imul(k, 0x9e3779b9)) | 0;
  h = Math.imul(h ^ (h >>> 16), 0x85ebca6b);
  h = Math.imul(h ^ (h >>> 13), 0xc2b2ae35);
  return (h ^ (h >>> 16)) >>> 0;
});

/** `n` standard normal numbers by Box and Muller, two from every two words. */
const normals = (seed, n) => {
  const next = xoshiro(stateOf(seed)), out = new Float32Array(n);
  for (let k = 0; k < n; k += 2) {
    const radius = Math.sqrt(-2 * Math.log((next() + 0.5) / SEEDS)), turn = 2 * Math.PI * next() / SEEDS;
    out[k] = radius * Math.cos(turn);
    if (k + 1 < n) out[k + 1] = radius * Math.sin(turn);
  }
  return out;
};

// --- the model --------------------------------------------------------------------------------

/** Bytes of a part of this page: base64, then gzip. */
const unpack = async id => {
  const text = atob($(id).textContent), bytes = new Uint8Array(text.length);
  for (let k = 0; k < text.length; k++) bytes[k] = text.charCodeAt(k);
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
};

const runtime = (async () => {
  const [script, wasm] = await Promise.all([unpack("runtime"), unpack("wasm")]);
  const ort = await import(URL.createObjectURL(new Blob([script], {type: "text/javascript"})));
  Object.assign(ort.env.wasm, {numThreads: 1, proxy: false, wasmBinary: wasm.buffer});
  return ort;
})();

const sessions = new Map(); // a model is unpacked when it is first chosen
const session = k => {
  if (!sessions.has(k)) sessions.set(k, Promise.all([runtime, unpack(`model-${k}`)])
    .then(([ort, bytes]) => ort.InferenceSession.create(bytes)));
  return sessions.get(k);
};

/** Showers (B, R, PHI, Z) flat, MeV, of conditions (B, 4) and noise (B, M), both flat. */
const run = async (conditions, noise, model = chosen()) => {
  const [ort, ready] = await Promise.all([runtime, session(model)]);
  const rows = conditions.length / 4;
  const tensor = (values, width) => new ort.Tensor("float32", Float32Array.from(values), [rows, width]);
  const found = await ready.run({conditions: tensor(conditions, 4), noise: tensor(noise, noise.length / rows)});
  return found.showers.data;
};

/** What is shown of a shower: its sum, hits and layers (MeV), and its cells as points (mm). */
const measured = (voxels, model) => {
  const [nr, nphi, nz] = model.shape, [dr, dz] = model.cell, layers = new Float64Array(nz), points = [];
  for (let r = 0, k = 0; r < nr; r++) for (let p = 0; p < nphi; p++) for (let z = 0; z < nz; z++, k++) {
    const e = voxels[k];
    layers[z] += e;
    if (e < CUT) continue;
    const phi = -Math.PI + (p + 0.5) * 2 * Math.PI / nphi, rho = (r + 0.5) * dr;
    points.push({x: rho * Math.cos(phi), y: rho * Math.sin(phi), z: (z + 0.5) * dz, e, at: [r, p, z]});
  }
  return {visible: layers.reduce((a, b) => a + b, 0), hits: points.length, layers, points};
};

// --- choices ----------------------------------------------------------------------------------

const chosen = () => Number($("detector").value);
const model = () => about.models[chosen()];
const energy = () => { const [low, high] = model().energy; return low * (high / low) ** $("energy").value; };
const pdg = () => Number(document.querySelector("#particle input:checked").value);
const conditions = () => [energy(), Number($("theta").value), Number($("phi").value), pdg()];
const seed = () => Math.min(Math.max(Math.trunc(Number($("seed").value)) || 0, 0), SEEDS - 1);
const digits = (x, n = 3) => x.toLocaleString("en", {maximumSignificantDigits: n, useGrouping: x >= 1e4}).replace(/,/g, " ");
const named = code => PARTICLES[code] || [`PDG ${code}`, `PDG ${code}`];

const describe = () => {
  $("energy-said").textContent = `${digits(energy() / 1e3)} GeV`;
  $("energy").setAttribute("aria-valuetext", $("energy-said").textContent);
  for (const id of ["theta", "phi"]) {
    const angle = Number($(id).value);
    $(`${id}-said`).textContent = `${angle.toFixed(2)} rad (${Math.round(angle * 180 / Math.PI)}°)`;
    $(id).setAttribute("aria-valuetext", $(`${id}-said`).textContent);
  }
};

/** Fit the controls to a detector; particle, energy and angle stay where the new model has them. */
const adopt = wanted => {
  const {energy: [low, high], theta, pdg: codes, shape, cell, built} = model();
  $("built").textContent = `${built ? built + "; " : ""}${shape[0] * shape[1] * shape[2]} cells, `
    + `${cell[0]} mm in radius, ${cell[1]} mm in depth`;
  const code = codes.includes(wanted.pdg) ? wanted.pdg : codes[0];
  $("particle").replaceChildren(...codes.map(c => {
    const label = document.createElement("label"), input = document.createElement("input");
    Object.assign(input, {type: "radio", name: "particle", value: c, checked: c === code});
    label.append(input, named(c)[0]);
    return label;
  }));
  $("energy").value = high > low ? Math.log(Math.min(Math.max(wanted.energy, low), high) / low) / Math.log(high / low) : 0;
  $("energy").disabled = high <= low;
  Object.assign($("theta"), {min: theta[0], max: theta[1], disabled: theta[1] <= theta[0]});
  $("theta").value = wanted.theta;
  describe();
};

// --- from a choice to a shower ----------------------------------------------------------------

let shower = null, mean = null, waiting = null, busy = null;

/** Add a shower to the running mean, which begins anew with every new primary. */
const remember = (found, key, number) => {
  if (!mean || mean.key !== key) mean = {key, seeds: new Set(), layers: found.layers.map(() => 0), visible: 0, squares: 0, hits: 0, ms: 0};
  if (mean.seeds.has(number)) return;
  mean.seeds.add(number);
  const share = 1 / mean.seeds.size, gap = found.visible - mean.visible;
  mean.visible += gap * share;
  mean.squares += gap * (found.visible - mean.visible);
  mean.hits += (found.hits - mean.hits) * share;
  mean.ms += (found.ms - mean.ms) * share;
  mean.layers.forEach((e, k) => { mean.layers[k] += (found.layers[k] - e) * share; });
};

const generate = async () => {
  const k = chosen(), primary = conditions(), number = seed();
  await session(k);
  const start = performance.now();
  const voxels = await run(primary, normals(number, about.models[k].noise), k);
  const ms = performance.now() - start;
  shower = {...measured(voxels, about.models[k]), ms, seed: number, conditions: primary, model: about.models[k]};
  remember(shower, JSON.stringify([k, primary]), number);
  show();
};

/** Make a shower of the present choices; while one is made, only the latest wish is kept. */
const ask = () => {
  if (busy) { waiting ??= busy.then(() => { waiting = null; return ask(); }); return waiting; }
  busy = generate().catch(complain).finally(() => { busy = null; });
  return busy;
};

const another = async (count = 1) => {
  for (let k = 0; k < count; k++) {
    $("seed").value = (seed() + 1) % SEEDS;
    await ask();
    if (count > 1) await new Promise(requestAnimationFrame);
  }
};

const complain = error => {
  $("status").textContent = `This browser cannot run the model: ${error.message}. It needs WebAssembly with SIMD and DecompressionStream (every browser since 2023).`;
  $("status").classList.add("bad");
};

const show = () => {
  const {visible, hits, ms, conditions: [primary,, , code], model: {name}} = shower, n = mean.seeds.size;
  const spread = n > 1 ? Math.sqrt(mean.squares / (n - 1)) : 0;
  $("visible").textContent = `${digits(visible, 4)} MeV`;
  $("visible-mean").textContent = n > 1 ? `mean ${digits(mean.visible, 4)} ± ${digits(spread, 2)}` : `${digits(100 * visible / primary)} % of primary`;
  $("hits").textContent = digits(hits, 9);
  $("hits-mean").textContent = n > 1 ? `mean ${digits(mean.hits, 4)}` : "";
  $("time").textContent = `${digits(ms, ms < 10 ? 2 : 3)} ms`;
  $("time-mean").textContent = n > 1 ? `mean ${digits(mean.ms)} ms` : "";
  $("mean-said").textContent = n > 1 ? `mean of ${n} showers` : "mean, with more showers";
  $("scene").setAttribute("aria-label", `${named(code)[0]} of ${digits(primary / 1e3)} GeV in ${name}: ${digits(visible, 4)} MeV in ${hits} cells`);
  for (const id of ["new", "more"]) $(id).disabled = false;
  $("status").textContent = "";
  $("status").classList.remove("bad");
  drawProfile();
  prepare();
  redraw();
  Object.assign(document.body.dataset, {shower: shower.seed, showers: n});
};

// --- energy against depth ---------------------------------------------------------------------

/** A round step, 1, 2 or 5 times a power of ten, of which about `count` fit into `range`. */
const stepFor = (range, count) => {
  const raw = range / count, power = 10 ** Math.floor(Math.log10(raw)), lead = raw / power;
  return power * (lead > 5 ? 10 : lead > 2 ? 5 : lead > 1 ? 2 : 1);
};

const drawProfile = () => {
  const svg = $("profile"), {width: w, height: h} = svg.getBoundingClientRect();
  if (!w || !shower) return;
  const dz = shower.model.cell[1], n = shower.layers.length, left = 46, bottom = 32, top = 6;
  const most = Math.max(...shower.layers, ...mean.layers) * 1.05 || 1;
  const x = z => left + (w - left - 8) * z / (n * dz), y = e => h - bottom - (h - bottom - top) * e / most;
  const ticks = (range, count) => { const s = stepFor(range, count), out = []; for (let t = 0; t <= range * 1.0001; t += s) out.push(t); return out; };
  const bars = Array.from(shower.layers, (e, k) => `<rect class="bar" x="${x(k * dz) + .5}" width="${Math.max(x(dz) - x(0) - 1, .5)}" y="${y(e)}" height="${y(0) - y(e)}"/>`);
  const line = Array.from(mean.layers, (e, k) => `${k ? "L" : "M"}${x((k + .5) * dz)} ${y(e)}`).join("");
  svg.setAttribute("viewBox", `0 0 ${w} ${h}`);
  svg.innerHTML = `${bars.join("")}${mean.seeds.size > 1 ? `<path class="line" d="${line}"/>` : ""}<path class="axis" d="M${left} ${top}V${y(0)}H${w - 8}"/>`
    + ticks(n * dz, w < 420 ? 4 : 8).map(t => `<text x="${x(t)}" y="${h - 18}" text-anchor="middle">${digits(t, 6)}</text>`).join("")
    + ticks(most, 4).map(t => `<text x="${left - 6}" y="${y(t) + 4}" text-anchor="end">${digits(t, 6)}</text>`).join("")
    + `<text x="${w - 8}" y="${h - 3}" text-anchor="end">depth z′ [mm]</text>`
    + `<text transform="translate(10 ${top}) rotate(-90)" text-anchor="end">MeV per ${dz} mm</text>`;
};

// --- the drawing ------------------------------------------------------------------------------

const HOME = {yaw: -0.55, pitch: 0.32, near: 1};
const camera = {...HOME}, canvas = $("scene"), pen = canvas.getContext("2d");
let sprites = [], ink = {}, scale = null, placed = [], pending = false, touched = 0;

/** Colours of the scheme, and a small ball for each of 32 shades. */
const paint = () => {
  const style = getComputedStyle(document.documentElement), value = name => style.getPropertyValue(name).trim();
  ink = {ink: value("--ink"), soft: value("--soft"), grid: value("--grid"), accent: value("--accent")};
  const ramp = value("--ramp").split(",").map(c => [1, 3, 5].map(k => parseInt(c.trim().slice(k, k + 2), 16)));
  sprites = Array.from({length: 32}, (_, k) => {
    const t = k / 31 * (ramp.length - 1), a = Math.min(Math.floor(t), ramp.length - 2);
    const colour = ramp[a].map((c, i) => c + (ramp[a + 1][i] - c) * (t - a));
    const mixed = (other, share) => `rgb(${colour.map(c => Math.round(c + (other - c) * share)).join()})`;
    const ball = Object.assign(document.createElement("canvas"), {width: 48, height: 48}), brush = ball.getContext("2d");
    const light = brush.createRadialGradient(17, 16, 1, 24, 24, 24);
    [[0, mixed(255, .55)], [.45, mixed(0, 0)], [1, mixed(0, .3)]].forEach(stop => light.addColorStop(...stop));
    brush.fillStyle = light;
    brush.beginPath(); brush.arc(24, 24, 23, 0, 7); brush.fill();
    return ball;
  });
};

/** Share of every cell on the scale of colour and size: four decades below the brightest. */
const prepare = () => {
  const high = shower.points.reduce((a, p) => Math.max(a, p.e), 2 * CUT), low = Math.max(high / 1e4, CUT);
  scale = {low, high};
  for (const p of shower.points) p.share = Math.min(Math.max(Math.log(p.e / low) / Math.log(high / low), 0), 1);
  $("low").textContent = digits(low, 2);
  $("high").textContent = digits(high, 2);
};

/** From the frame of the mesh (mm) to the canvas: pixels, pixels per mm, and depth. */
const projection = (w, h) => {
  const {shape: [nr,, nz], cell: [dr, dz]} = shower.model, R = nr * dr, L = nz * dz;
  const [sy, cy, sp, cp] = [Math.sin(camera.yaw), Math.cos(camera.yaw), Math.sin(camera.pitch), Math.cos(camera.pitch)];
  const eye = 2.6 * Math.hypot(L, 2 * R), size = Math.min(w / (1.16 * L + 1.1 * R), h / (2.6 * R + .22 * L)) * camera.near * eye;
  const project = (x, y, z) => {
    const a = z - L / 2, right = a * cy + y * sy, away = y * cy - a * sy;
    const up = x * cp + away * sp, far = away * cp - x * sp, k = size / (eye + far);
    return [w / 2 + k * right, h / 2 - k * up, k, far];
  };
  return {R, L, project};
};

const path = (points, close = false) => {
  pen.beginPath();
  points.forEach(([x, y], k) => (k ? pen.lineTo(x, y) : pen.moveTo(x, y)));
  if (close) pen.closePath();
  pen.stroke();
};

const write = (text, [x, y], align = "center", colour = ink.soft) => {
  pen.fillStyle = colour; pen.textAlign = align; pen.textBaseline = "middle";
  pen.fillText(text, x, y);
};

const drawMesh = ({R, L, project}) => {
  const ring = z => Array.from({length: 73}, (_, k) => project(R * Math.cos(k * Math.PI / 36), R * Math.sin(k * Math.PI / 36), z));
  pen.strokeStyle = ink.grid; pen.lineWidth = 1;
  pen.globalAlpha = .9; path(ring(0)); path(ring(L));
  pen.globalAlpha = .35;
  for (let k = 0; k < 8; k++) {
    const x = R * Math.cos(k * Math.PI / 4), y = R * Math.sin(k * Math.PI / 4);
    path([project(x, y, 0), project(x, y, L)]);
  }
  const step = stepFor(L, canvas.clientWidth < 500 ? 3 : 6), below = -1.03 * R;
  for (let z = step; z < L; z += step) path(ring(z));
  pen.globalAlpha = 1;
  pen.strokeStyle = ink.soft;
  path([project(below, 0, 0), project(below, 0, L)]);
  for (let z = 0; z <= L; z += step) {
    path([project(below, 0, z), project(below - .06 * R, 0, z)]);
    write(digits(z, 6), project(below - .2 * R, 0, z));
  }
  write("z′ [mm]", project(below - .45 * R, 0, L / 2));
  path([project(0, 0, L), project(R, 0, L)]);
  const across = stepFor(R, 2.5);
  for (let r = 0; r <= R; r += across) {
    path([project(r, 0, L), project(r, 0, L * 1.012)]);
    write(digits(r, 6), project(r, 0, L * 1.045));
  }
  write("r [mm]", project(1.17 * R, 0, L));
};

/** The primary, as an arrow that ends at the entrance. */
const drawPrimary = ({R, L, project}) => {
  const tip = project(0, 0, 0), tail = project(0, 0, -.22 * L), [dx, dy] = [tip[0] - tail[0], tip[1] - tail[1]];
  const length = Math.hypot(dx, dy) || 1, [ux, uy] = [dx / length, dy / length];
  pen.strokeStyle = pen.fillStyle = ink.accent; pen.lineWidth = 2;
  path([tail, tip]);
  pen.beginPath(); pen.moveTo(tip[0], tip[1]);
  for (const side of [4, -4]) pen.lineTo(tip[0] - 10 * ux - side * uy, tip[1] - 10 * uy + side * ux);
  pen.fill();
  const [primary,,, code] = shower.conditions, at = project(.22 * R, 0, -.2 * L);
  write(`${named(code)[1]} ${digits(primary / 1e3)} GeV`, [Math.max(at[0], 50), at[1]], "center", ink.ink);
};

const draw = () => {
  pending = false;
  const w = canvas.clientWidth, h = canvas.clientHeight, ratio = Math.min(devicePixelRatio || 1, 2);
  if (!shower || !w) return;
  if (canvas.width !== Math.round(w * ratio) || canvas.height !== Math.round(h * ratio)) Object.assign(canvas, {width: Math.round(w * ratio), height: Math.round(h * ratio)});
  pen.setTransform(ratio, 0, 0, ratio, 0, 0);
  pen.clearRect(0, 0, w, h);
  pen.font = `${w < 500 ? 11 : 12.5}px system-ui, sans-serif`;
  const space = projection(w, h), cell = Math.min(...shower.model.cell);
  drawMesh(space);
  drawPrimary(space);
  placed = shower.points.map(p => { const [x, y, k, far] = space.project(p.x, p.y, p.z); return {x, y, far, p, r: Math.max(k * cell * (.1 + .65 * p.share ** 1.6), .6)}; });
  placed.sort((a, b) => b.far - a.far);
  for (const {x, y, r, p} of placed) {
    pen.globalAlpha = .3 + .65 * p.share;
    pen.drawImage(sprites[Math.round(31 * p.share)], x - r, y - r, 2 * r, 2 * r);
  }
  pen.globalAlpha = 1;
};

const redraw = () => { if (!pending) { pending = true; requestAnimationFrame(draw); } };

const turn = (yaw, pitch, near = 1) => {
  camera.yaw += yaw;
  camera.pitch = Math.min(Math.max(camera.pitch + pitch, -1.5), 1.5);
  camera.near = Math.min(Math.max(camera.near * near, .5), 6);
  redraw();
};

/** Turn by itself until someone takes hold of it, or the box is unticked. */
const drift = before => requestAnimationFrame(now => {
  if (!$("turn").checked) return;
  const box = canvas.getBoundingClientRect();
  if (box.bottom > 0 && box.top < innerHeight && performance.now() - touched > 1500) turn(Math.min(now - before, 100) * 2.5e-4, 0);
  drift(now);
});

const point = (x, y) => {
  const near = placed.findLast(q => Math.hypot(q.x - x, q.y - y) < Math.max(q.r, 4));
  $("status").textContent = near ? `${digits(near.p.e)} MeV at r ${near.p.at[0]}, φ ${near.p.at[1]}, z ${near.p.at[2]}` : "";
};

const KEYS = {ArrowLeft: [-.1, 0], ArrowRight: [.1, 0], ArrowUp: [0, .1], ArrowDown: [0, -.1], "+": [0, 0, 1.15], "=": [0, 0, 1.15], "-": [0, 0, 1 / 1.15]};

const listen = () => {
  const fingers = new Map(), apart = () => { const [a, b] = fingers.values(); return Math.hypot(a.x - b.x, a.y - b.y); };
  canvas.addEventListener("pointerdown", e => { canvas.setPointerCapture(e.pointerId); fingers.set(e.pointerId, {x: e.offsetX, y: e.offsetY}); });
  for (const end of ["pointerup", "pointercancel"]) canvas.addEventListener(end, e => fingers.delete(e.pointerId));
  canvas.addEventListener("pointermove", e => {
    const held = fingers.get(e.pointerId), here = {x: e.offsetX, y: e.offsetY};
    if (!held) { point(here.x, here.y); return; }
    const before = fingers.size === 2 ? apart() : 0;
    fingers.set(e.pointerId, here);
    touched = performance.now();
    if (before) turn(0, 0, apart() / before); else turn((here.x - held.x) * .008, (here.y - held.y) * .008);
  });
  canvas.addEventListener("wheel", e => { if (document.activeElement === canvas) { e.preventDefault(); turn(0, 0, Math.exp(-e.deltaY * .001)); } }, {passive: false});
  canvas.addEventListener("keydown", e => {
    if (e.key !== "Home" && !KEYS[e.key]) return;
    e.preventDefault();
    touched = performance.now();
    if (e.key === "Home") { Object.assign(camera, HOME); redraw(); } else turn(...KEYS[e.key]);
  });
  $("controls").addEventListener("submit", e => { e.preventDefault(); another(); });
  $("more").addEventListener("click", () => another(20));
  $("controls").addEventListener("input", e => {
    if (e.target === $("detector")) adopt(wish); else describe();
    wish = {energy: energy(), theta: $("theta").value, pdg: pdg()};
    ask();
  });
  $("turn").addEventListener("change", () => drift(performance.now()));
  $("licences").addEventListener("toggle", async () => { $("notices-text").textContent ||= new TextDecoder().decode(await unpack("notices")); });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { paint(); redraw(); });
  new ResizeObserver(() => { drawProfile(); redraw(); }).observe($("profile"));
};

let wish = {energy: 2e4, theta: Math.PI / 2, pdg: 11};
about.models.forEach(({name}, k) => $("detector").add(new Option(name, k)));
paint();
adopt(wish);
listen();
window.caloforge = {about, run, normals, xoshiro, stateOf, camera, ready: ask(), shower: () => shower, mean: () => mean};
})();
