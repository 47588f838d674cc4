// The exported files in onnxruntime's WebAssembly build: no photo leaves the page.
import * as ort from "../ort/ort.wasm.min.mjs";

// What a phone's memory takes; larger photos are made smaller first.
const MAX_SIDE = 4096;

ort.env.wasm.numThreads = 1; // more need headers that pages seldom have
ort.env.wasm.wasmPaths = new URL("../ort/", import.meta.url).href;

const below = (address) => new URL(`../${address}`, import.meta.url).href;
const loaded = load();
loaded.catch(() => {}); // told with the photo that needs it

async function load() {
  const names = await (await fetch(below("app.json"))).json();
  const open = (address) =>
    ort.InferenceSession.create(below(address), { executionProviders: ["wasm"] });
  const session = await open(names.graph);
  return [session, names.nearest && (await open(names.nearest)), names];
}

/** Decode a photo to upright RGB on white: a uint8 tensor of height, width, 3. */
async function pixelsOf(photo) {
  let bitmap;
  try {
    bitmap = await createImageBitmap(photo, { imageOrientation: "from-image" });
  } catch {
    throw new Error("not an image that this browser can show");
  }
  const scale = Math.min(1, MAX_SIDE / Math.max(bitmap.width, bitmap.height));
  const width = Math.max(1, Math.round(bitmap.width * scale));
  const height = Math.max(1, Math.round(bitmap.height * scale));
  const canvas = document.createElement("canvas");
  canvas.width = width;
  canvas.height = height;
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.fillStyle = "#fff";
  context.fillRect(0, 0, width, height);
  context.drawImage(bitmap, 0, 0, width, height);
  bitmap.close();
  const rgba = context.getImageData(0, 0, width, height).data;
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

/** Give what the server's POST /predict gives. */
export async function predict(photo) {
  const [[session, nearest, names], image] = await Promise.all([loaded, pixelsOf(photo)]);
  const { probabilities, features } = await session.run({ image });
  const top = Array.from(probabilities.data, (probability, i) => ({ label: names.labels[i], probability }))
    .sort((a, b) => b.probability - a.probability)
    .slice(0, names.n_top);
  const prediction = top[0].probability >= names.threshold ? top[0].label : null;
  const fact = names.facts[prediction] ?? null;
  const similar = await similarTo(features, nearest, names);
  return { prediction, probability: top[0].probability, top, nearest: similar, fact };
}
