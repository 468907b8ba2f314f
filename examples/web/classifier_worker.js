// Runs the graph: samples in, logits out. `null` asks for nothing but an answer once the graph is loaded.
import * as ort from "./runtime.mjs";

async function unzipped(name) {
  const response = await fetch(new URL(name, import.meta.url));
  if (!response.ok) throw new Error(`${name} must be beside the page, found status ${response.status}.`);
  return new Uint8Array(await new Response(response.body.pipeThrough(new DecompressionStream("gzip"))).arrayBuffer());
}

async function load() {
  ort.env.wasm.numThreads = 1; // more need headers that static hosts do not send
  ort.env.wasm.wasmBinary = await unzipped("runtime.wasm.gzip");
  return ort.InferenceSession.create(await unzipped("model.onnx.gzip"), { executionProviders: ["wasm"] });
}

async function logits(samples) {
  const model = await session;
  if (!samples) return null;
  const dims = [1, samples.length];
  const { logits } = await model.run({
    input_values: new ort.Tensor("float32", samples, dims),
    attention_mask: new ort.Tensor("int64", new BigInt64Array(samples.length).fill(1n), dims),
  });
  return logits.data.slice();
}

const session = load();

self.onmessage = async ({ data, ports: [port] }) => {
  try {
    port.postMessage({ logits: await logits(data) });
  } catch (error) {
    port.postMessage({ error: error.message });
  }
};
