// Run an exported file in onnxruntime's WebAssembly build, as a browser would.
// node run.mjs APP.onnx WIDTH,HEIGHT,PIXELS ...   PIXELS: raw RGB bytes, row by row
import { readFile } from "node:fs/promises";
import * as ort from "onnxruntime-web";

ort.env.wasm.numThreads = 1;
const [app, ...photos] = process.argv.slice(2);
const session = await ort.InferenceSession.create(await readFile(app), {
  executionProviders: ["wasm"],
});
const answers = [];
for (const photo of photos) {
  const [width, height, ...path] = photo.split(",");
  const pixels = new Uint8Array(await readFile(path.join(",")));
  const image = new ort.Tensor("uint8", pixels, [Number(height), Number(width), 3]);
  const started = performance.now();
  const { probabilities, features } = await session.run({ image });
  answers.push({
    probabilities: Array.from(probabilities.data),
    features: Array.from(features.data),
    ms: performance.now() - started,
  });
}
console.log(JSON.stringify(answers));
