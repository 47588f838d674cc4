// The exported files in onnxruntime's WebAssembly build: no photo leaves the page.
import * as ort from "../ort/ort.wasm.min.mjs";
import { draw } from "./photo.js";
import { Problem } from "./server.js";

// What a phone's memory takes; larger photos are made smaller first.
const MAX_SIDE = 4096;

ort.env.wasm.numThreads = 1; // more need headers that pages seldom have
ort.env.wasm.wasmPaths = new URL("../ort/", import.meta.url).href;

const below = (address) => new URL(`../${address}`, import.meta.url).href;
let watch = () => {};
let loaded;
ready().catch(() => {}); // told with the photo that needs it

/** Load what the page needs, once; a load that failed is tried again. */
function ready() {
  loaded ??= load().catch((error) => {
    loaded = undefined;
    throw error instanceof TypeError ? new Problem("unreachable") : error;
  });
  return loaded;
}

async function load() {
  const names = await (await fetch(below("app.json"))).json();
  let done = 0;
  const read = async (address) => {
    const parts = [];
    const response = await fetch(below(address));
    if (!response.ok) throw new Problem("unreachable");
    for await (const part of chunksOf(response.body)) {
      parts.push(part);
      watch((done += part.length) / names.bytes);
    }
    return new Uint8Array(await new Blob(parts).arrayBuffer());
  };
  const open = async (address) =>
    ort.InferenceSession.create(await read(address), { executionProviders: ["wasm"], logSeverityLevel: 3 }); // errors
  ort.env.wasm.wasmBinary = await read("ort/ort-wasm-simd-threaded.wasm");
  const session = await open(names.graph);
  const nearest = names.nearest && (await open(names.nearest));
  return [session, nearest, names];
}

async function* chunksOf(stream) {
  const reader = stream.getReader(); // not every browser iterates over a stream
  for (let next = await reader.read(); !next.done; next = await reader.read()) yield next.value;
}

/** Decode a photo to upright RGB on white: a uint8 tensor of height, width, 3. */
async function pixelsOf(photo) {
  let canvas;
  try {
    canvas = await draw(photo, MAX_SIDE);
  } catch {
    throw new Problem("not an image");
  }
  const { width, height } = canvas;
  const rgba = canvas.getContext("2d").getImageData(0, 0, width, height).data;
  const rgb = new Uint8Array(width * height * 3);
  for (let from = 0, to = 0; from < rgba.length; from += 4) {
    rgb[to++] = rgba[from];
    rgb[to++] = rgba[from + 1];
    rgb[to++] = rgba[from + 2];
  }
  return new ort.Tensor("uint8", rgb, [height, width, 3]);
}

async function similarTo(features, nearest, names) {
  if (!nearest) return [];
  const { known } = await nearest.run({ features });
  return Array.from(known.data, (number) =>
    ({ label: names.labels[names.known[number]], thumbnail: below(`known/${number}.jpg`) }));
}

/** Give what the server's POST /predict gives; `onShare` is told how much has been loaded, 0 to 1. */
export async function predict(photo, onShare) {
  watch = onShare;
  const [[session, nearest, names], image] = await Promise.all([ready(), pixelsOf(photo)]);
  onShare(1);
  const { probabilities, features } = await session.run({ image });
  const top = Array.from(probabilities.data, (probability, i) => ({ label: names.labels[i], probability }))
    .sort((a, b) => b.probability - a.probability)
    .slice(0, names.n_top);
  const prediction = top[0].probability >= names.threshold ? top[0].label : null;
  const fact = names.facts[prediction] ?? null;
  const similar = await similarTo(features, nearest, names);
  return { prediction, probability: top[0].probability, top, nearest: similar, fact, threshold: names.threshold };
}
