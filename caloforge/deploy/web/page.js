/* Showers in a browser: noise from a seed, a model in ONNX Runtime Web, and the controls.
 *
 * Units: MeV, mm, rad; the sliders of energy speak GeV. Voxels are (R, PHI, Z), Z fastest, bin 0 of
 * phi starting at -pi. The page's test and the curious find the parts under window.caloforge.
 */
"use strict";
(() => {
const CUT = 5e-4; // MeV: a cell below is no hit, as in caloforge's evaluation
const DECADES = 4; // of the scale of colour and size, below the brightest cell
const SEEDS = 2 ** 32;
const PARTICLES = {11: ["electron", "e⁻"], "-11": ["positron", "e⁺"], 22: ["photon", "γ"]};
const {digits} = drawing;
const $ = id => document.getElementById(id);
const about = JSON.parse($("about").textContent);

// --- noise ------------------------------------------------------------------------------------

/** xoshiro128** from a state of four words; every call gives 32 bits. */
const xoshiro = state => {
  const s = Uint32Array.from(state), turned = (x, k) => (x << k) | (x >>> (32 - k));
  return () => {
    const out = Math.imul(turned(Math.imul(s[1], 5), 7), 9) >>> 0, t = s[1] << 9;
    s[2] ^= s[0];
    s[3] ^= s[1];
    s[1] ^= s[2];
    s[0] ^= s[3];
    s[2] ^= t;
    s[3] = turned(s[3], 11);
    return out;
  };
};

/** Four words of state: steps of the golden ratio from the seed, through MurmurHash3's finaliser. */
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
    const radius = Math.sqrt(-2 * Math.log((next() + 0.5) / SEEDS)), angle = 2 * Math.PI * next() / SEEDS;
    out[k] = radius * Math.cos(angle);
    if (k + 1 < n) out[k + 1] = radius * Math.sin(angle);
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

const sessions = new Map();

/** The session of a model, which is unpacked when it is first chosen. */
const session = k => {
  const made = async () => {
    const [ort, bytes] = await Promise.all([runtime, unpack(`model-${k}`)]);
    return ort.InferenceSession.create(bytes);
  };
  if (!sessions.has(k)) sessions.set(k, made());
  return sessions.get(k);
};

/** Showers (B, R, PHI, Z) flat, MeV, of conditions (B, 4) and noise (B, M), both flat. */
const run = async (conditions, noise, k = chosen()) => {
  const [ort, ready] = await Promise.all([runtime, session(k)]), rows = conditions.length / 4;
  const tensor = values => new ort.Tensor("float32", Float32Array.from(values), [rows, values.length / rows]);
  return (await ready.run({conditions: tensor(conditions), noise: tensor(noise)})).showers.data;
};

/** What is shown of a shower: its sum, hits and layers (MeV), and its cells as points (mm). */
const measured = (voxels, {shape: [nr, nphi, nz], cell: [dr, dz]}) => {
  const layers = new Float64Array(nz), points = [];
  voxels.forEach((e, k) => {
    const z = k % nz, p = Math.floor(k / nz) % nphi, r = Math.floor(k / nz / nphi);
    layers[z] += e;
    if (e < CUT) return;
    const phi = -Math.PI + (p + 0.5) * 2 * Math.PI / nphi, rho = (r + 0.5) * dr;
    points.push({x: rho * Math.cos(phi), y: rho * Math.sin(phi), z: (z + 0.5) * dz, e, cell: [r, p, z]});
  });
  const high = points.reduce((a, p) => Math.max(a, p.e), 2 * CUT), low = Math.max(high / 10 ** DECADES, CUT);
  for (const p of points) p.share = Math.max(Math.log(p.e / low) / Math.log(high / low), 0);
  const visible = layers.reduce((a, b) => a + b, 0);
  return {visible, hits: points.length, layers, points, low, high, R: nr * dr, L: nz * dz, grain: Math.min(dr, dz)};
};

// --- choices ----------------------------------------------------------------------------------

const chosen = () => Number($("detector").value);
const within = (x, low, high) => Math.min(Math.max(x, low), high);
const named = code => PARTICLES[code] ?? [`PDG ${code}`, `PDG ${code}`];
const pdg = () => Number(document.querySelector("#particle input:checked").value);
const seed = () => within(Math.trunc(Number($("seed").value)) || 0, 0, SEEDS - 1);
const energy = () => {
  const [low, high] = about.models[chosen()].energy;
  return low * (high / low) ** $("energy").value;
};
const conditions = () => [energy(), Number($("theta").value), Number($("phi").value), pdg()];

const describe = () => {
  const said = (id, text) => {
    $(`${id}-said`).textContent = text;
    $(id).setAttribute("aria-valuetext", text);
  };
  said("energy", `${digits(energy() / 1e3)} GeV`);
  for (const id of ["theta", "phi"]) {
    const angle = Number($(id).value);
    said(id, `${angle.toFixed(2)} rad (${Math.round(angle * 180 / Math.PI)}°)`);
  }
};

/** Fit the controls to a detector; particle, energy and angle stay where the new model has them. */
const adopt = wanted => {
  const {energy: [low, high], theta, pdg: codes, shape, cell, built} = about.models[chosen()];
  $("built").textContent = [
    built, `${digits(shape[0] * shape[1] * shape[2], 9)} cells of ${cell[0]} mm in radius, ${cell[1]} mm in depth`,
  ].filter(Boolean).join("; ");
  $("particle").replaceChildren(...codes.map(code => {
    const label = document.createElement("label"), input = document.createElement("input");
    const checked = code === (codes.includes(wanted.pdg) ? wanted.pdg : codes[0]);
    Object.assign(input, {type: "radio", name: "particle", value: code, checked});
    label.append(input, named(code)[0]);
    return label;
  }));
  const span = Math.log(high / low), place = Math.log(within(wanted.energy, low, high) / low);
  Object.assign($("energy"), {value: span > 0 ? place / span : 0, disabled: span <= 0});
  Object.assign($("theta"), {min: theta[0], max: theta[1], disabled: theta[1] <= theta[0]});
  $("theta").value = wanted.theta;
  describe();
};

// --- from a choice to a shower ----------------------------------------------------------------

let shower = null, mean = null, wish = {energy: 2e4, theta: Math.PI / 2, pdg: 11};
let waiting = null, busy = null;

/** Add a shower to the running mean, which begins anew with every new primary. */
const remember = found => {
  if (mean?.key !== found.key) {
    const layers = new Float64Array(found.layers.length);
    mean = {key: found.key, seeds: new Set(), layers, visible: 0, squares: 0, hits: 0, ms: 0};
  }
  if (mean.seeds.has(found.seed)) return;
  mean.seeds.add(found.seed);
  const share = 1 / mean.seeds.size, gap = found.visible - mean.visible;
  for (const name of ["visible", "hits", "ms"]) mean[name] += (found[name] - mean[name]) * share;
  mean.squares += gap * (found.visible - mean.visible);
  mean.layers = mean.layers.map((e, k) => e + (found.layers[k] - e) * share);
};

const generate = async () => {
  const k = chosen(), model = about.models[k], primary = conditions(), number = seed();
  await session(k);
  const start = performance.now();
  const voxels = await run(primary, normals(number, model.noise), k);
  const ms = performance.now() - start, [e,,, code] = primary;
  shower = {
    ...measured(voxels, model), ms, seed: number, conditions: primary, model,
    key: JSON.stringify([k, primary]), primary: `${named(code)[1]} ${digits(e / 1e3)} GeV`,
  };
  remember(shower);
  show();
};

/** Make a shower of the present choices; while one is made, only the latest wish is kept. */
const ask = () => {
  if (busy) return waiting ??= busy.then(() => { waiting = null; return ask(); });
  return busy = generate().catch(complain).finally(() => { busy = null; });
};

const another = async (count = 1) => {
  for (let k = 0; k < count; k++) {
    $("seed").value = (seed() + 1) % SEEDS;
    await ask();
    if (count > 1) await new Promise(requestAnimationFrame);
  }
};

const complain = error => {
  $("status").textContent = `This browser cannot run the model: ${error.message}. `
    + "It needs WebAssembly with SIMD and DecompressionStream, as browsers have since 2023.";
  $("status").classList.add("bad");
};

// --- what is shown ----------------------------------------------------------------------------

const scene = drawing.scene($("scene"), text => { if (shower) $("status").textContent = text; });

const showProfile = () => {
  if (!shower) return;
  drawing.profile($("profile"), shower.layers, mean.seeds.size > 1 ? mean.layers : null, shower.model.cell[1]);
};

const show = () => {
  const {visible, hits, ms, low, high, primary, conditions: [e], model: {name}} = shower, n = mean.seeds.size;
  const spread = Math.sqrt(mean.squares / Math.max(n - 1, 1)), texts = {
    visible: `${digits(visible, 4)} MeV`, hits: digits(hits, 9), time: ms > 0 ? `${digits(ms, ms < 10 ? 2 : 3)} ms` : "< 1 ms",
    low: digits(low, 2), high: digits(high, 2), status: "",
    "visible-mean": n > 1 ? `mean ${digits(mean.visible, 4)}, σ ${digits(spread, 2)}` : `${digits(100 * visible / e)} % of primary`,
    "hits-mean": n > 1 ? `mean ${digits(mean.hits, 4)}` : "above 0.5 keV",
    "time-mean": n > 1 ? `mean ${digits(mean.ms)} ms` : "",
    "mean-said": n > 1 ? `mean of ${n} showers` : "mean, with more showers",
  };
  for (const [id, text] of Object.entries(texts)) $(id).textContent = text;
  for (const id of ["new", "more"]) $(id).disabled = false;
  $("status").classList.remove("bad");
  $("scene").setAttribute("aria-label", `${primary} in ${name}: ${texts.visible} in ${hits} cells, in three dimensions`);
  showProfile();
  scene.show(shower);
  Object.assign(document.body.dataset, {shower: shower.seed, showers: n});
};

$("controls").addEventListener("submit", event => event.preventDefault());
$("new").addEventListener("click", () => another());
$("more").addEventListener("click", () => another(20));
$("controls").addEventListener("input", event => {
  if (event.target === $("detector")) adopt(wish); else describe();
  wish = {energy: energy(), theta: $("theta").value, pdg: pdg()};
  ask();
});
$("turn").addEventListener("change", () => scene.drift(() => $("turn").checked));
$("licences").addEventListener("toggle", async () => {
  $("notices-text").textContent ||= new TextDecoder().decode(await unpack("notices"));
});
new ResizeObserver(showProfile).observe($("profile"));
about.models.forEach(({name}, k) => $("detector").add(new Option(name, k)));
adopt(wish);
window.caloforge = {run, normals, xoshiro, camera: scene.camera, ready: ask(), shower: () => shower};
})();
