// The page that draws a tumour and shows the slice that the network makes of it.
// SETTINGS is of settings.js; the network and the runtime come as scripts too, since a page that was opened
// from a disk may load scripts but may not fetch files.
"use strict";

const $ = (id) => document.getElementById(id);
const size = SETTINGS.size;
const tumor = new Uint8Array(size * size); // 0, or the value of a tumour's class
let anatomy = new Uint8Array(size * size); // 0, or the value of a class of anatomy
let session = null;
let running = false;
let again = false;

// ---------------------------------------------------------------- the network
const parts = {};
window.PART = (name, bytes) => (parts[name] ??= []).push(Uint8Array.from(atob(bytes), (c) => c.charCodeAt(0)));

function script(src) {
  return new Promise((done, failed) => {
    const element = document.createElement("script");
    element.src = src;
    element.onload = done;
    element.onerror = () => failed(new Error(`${src} is missing beside this page`));
    document.head.append(element);
  });
}

async function unpacked(name, count, what) {
  for (let i = 0; i < count; i++) {
    tell(`Loading ${what}, ${i + 1} of ${count} …`);
    await script(`${name}_${i}.js`);
  }
  const packed = new Blob(parts[name]).stream().pipeThrough(new DecompressionStream("gzip"));
  delete parts[name];
  return new Response(packed).arrayBuffer();
}

async function start() {
  const glue = await unpacked("glue", SETTINGS.parts.glue, "the runtime");
  ort.env.wasm.wasmPaths = { mjs: URL.createObjectURL(new Blob([glue], { type: "text/javascript" })) };
  ort.env.wasm.wasmBinary = await unpacked("wasm", SETTINGS.parts.wasm, "the runtime");
  ort.env.wasm.numThreads = self.crossOriginIsolated ? Math.min(4, navigator.hardwareConcurrency) : 1;
  const model = await unpacked("model", SETTINGS.parts.model, "the network");
  tell("Starting …");
  session = await ort.InferenceSession.create(model, { executionProviders: ["wasm"] });
  $("generate").disabled = false;
  await generate();
}

// ---------------------------------------------------------------- random numbers, 24 bits each, from a seed
function stream(seed) {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0; // mulberry32
    let t = Math.imul(state ^ (state >>> 15), state | 1);
    t = (t + Math.imul(t ^ (t >>> 7), t | 61)) ^ t;
    return ((t ^ (t >>> 14)) >>> 8) / 2 ** 24;
  };
}

function noise(seed) {
  const uniform = stream(seed);
  const normal = () => Math.sqrt(-2 * Math.log(1 - uniform())) * Math.cos(2 * Math.PI * uniform());
  return SETTINGS.noise.map(({ name, kind, shape }) => {
    const numbers = new Float32Array(shape.reduce((a, b) => a * b, 1));
    const next = kind === "uniform" ? uniform : normal;
    for (let i = 0; i < numbers.length; i++) numbers[i] = next();
    return [name, new ort.Tensor("float32", numbers, [1, ...shape])];
  });
}

// ---------------------------------------------------------------- the image
function stored() {
  if (SETTINGS.stored === "labels") return new ort.Tensor("uint8", Uint8Array.of(chosen()), [1]);
  return new ort.Tensor("uint8", tumor.map((value, i) => value || anatomy[i]), [1, size, size]);
}

async function generate() {
  if (!session) return;
  if (running) {
    again = true; // once more with what has been drawn meanwhile
    return;
  }
  running = true;
  try {
    const feeds = Object.fromEntries([[SETTINGS.stored, stored()], ...noise(Number($("seed").value))]);
    const started = performance.now();
    const images = (await session.run(feeds)).images;
    const time = performance.now() - started;
    show(images.data, images.dims[3]);
    tell(`${time < 100 ? time.toFixed(1) : Math.round(time)} ms in this browser, seed ${$("seed").value}`);
    $("save").disabled = false;
    document.body.dataset.images = Number(document.body.dataset.images ?? 0) + 1;
  } catch (error) {
    tell(`The image could not be made: ${error.message}`);
  }
  running = false;
  if (again) {
    again = false;
    await generate();
  }
}

function show(values, channels) {
  const picture = new ImageData(size, size);
  for (let i = 0; i < size * size; i++) {
    for (let c = 0; c < 3; c++) {
      picture.data[4 * i + c] = Math.round(255 * values[i * channels + (channels === 3 ? c : 0)]);
    }
    picture.data[4 * i + 3] = 255;
  }
  $("image").getContext("2d").putImageData(picture, 0, 0);
}

// ---------------------------------------------------------------- drawing
const chosen = () => Number(document.querySelector("input[name=class]:checked").value);

function paint() {
  const picture = new ImageData(size, size);
  for (let i = 0; i < size * size; i++) picture.data.set([...SETTINGS.palette[tumor[i] || anatomy[i]], 255], 4 * i);
  $("map").getContext("2d").putImageData(picture, 0, 0);
}

function stroke(from, to) {
  const radius = Number($("brush").value) / 2;
  const value = $("erase").checked ? 0 : chosen();
  const steps = Math.ceil(2 * Math.hypot(to.x - from.x, to.y - from.y)) + 1;
  for (let s = 0; s <= steps; s++) {
    const x = from.x + ((to.x - from.x) * s) / steps;
    const y = from.y + ((to.y - from.y) * s) / steps;
    for (let row = Math.max(0, Math.floor(y - radius)); row <= Math.min(size - 1, y + radius); row++) {
      for (let column = Math.max(0, Math.floor(x - radius)); column <= Math.min(size - 1, x + radius); column++) {
        if (Math.hypot(column + 0.5 - x, row + 0.5 - y) <= radius) tumor[row * size + column] = value;
      }
    }
  }
  paint();
}

function place(event) {
  const box = $("map").getBoundingClientRect();
  return { x: ((event.clientX - box.left) * size) / box.width, y: ((event.clientY - box.top) * size) / box.height };
}

function drawing() {
  let last = null;
  const end = () => {
    if (last) generate();
    last = null;
  };
  $("map").addEventListener("pointerdown", (event) => {
    if (!event.isPrimary || event.button) return;
    $("map").setPointerCapture(event.pointerId);
    last = place(event);
    stroke(last, last);
  });
  $("map").addEventListener("pointermove", (event) => {
    if (!last || !event.isPrimary) return;
    const here = place(event);
    stroke(last, here);
    last = here;
  });
  $("map").addEventListener("pointerup", end);
  $("map").addEventListener("pointercancel", end);
  $("clear").addEventListener("click", () => {
    tumor.fill(0);
    paint();
    generate();
  });
  $("head").addEventListener("change", () => {
    example(Number($("head").value), false);
    generate();
  });
}

function example(index, withTumor) {
  const { anatomy: map, tumor: mask, label } = SETTINGS.examples[index];
  const bytes = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
  anatomy = bytes(map);
  if (withTumor) {
    tumor.set(bytes(mask));
    document.querySelector(`input[name=class][value="${label}"]`).checked = true;
  }
  paint();
}

// ---------------------------------------------------------------- the rest of the page
const tell = (text) => ($("status").textContent = text);

function controls() {
  $("seed").addEventListener("change", () => {
    const seed = Math.floor(Number($("seed").value));
    $("seed").value = Number.isFinite(seed) ? Math.min(Math.max(seed, 0), 2 ** 32 - 1) : 0;
    generate();
  });
  $("another").addEventListener("click", () => {
    $("seed").value = crypto.getRandomValues(new Uint32Array(1))[0];
    generate();
  });
  $("generate").addEventListener("click", generate);
  $("save").addEventListener("click", () => {
    const link = document.createElement("a");
    link.href = $("image").toDataURL("image/png");
    link.download = `synthetic_seed${$("seed").value}.png`;
    link.click();
  });
  if (SETTINGS.stored === "labels") {
    for (const input of document.querySelectorAll("input[name=class]")) input.addEventListener("change", generate);
    return;
  }
  drawing();
  example(0, true);
}

controls();
start().catch((error) => tell(`The network could not be started: ${error.message}`));
