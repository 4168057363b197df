// The model draws in this page: ONNX Runtime Web, WASM on one thread, from files beside the page.

import { noise } from "./noise.js";

const SIDE = 28;
const TIMED_MS = 2000;

/** An engine of the page: `draw`, `edit` and `time` ask nobody. */
export class InPage {
  constructor(told, grammar, editor) {
    this.told = told;
    this.grammar = grammar;
    this.editor = editor;
    this.words = `${told.model} draws in this page, in ONNX Runtime Web on one thread of WASM.`;
  }

  /** Fetch and start everything; `progress` is told what is being fetched. */
  async ready(progress) {
    progress("Fetching ONNX Runtime.");
    const bundle = await import("./widget.js");
    this.measureInTurn = bundle.measureInTurn;
    this.runtime = bundle.sharedRuntime();
    await this.runtime.start(async () => unpacked(await fetched("ort.wasm.gz")));
    progress("Fetching the model.");
    const { key } = this.told;
    const bytes = new Uint8Array(await fetched(`model.onnx?${key}`));
    progress("Preparing the model.");
    this.session = await this.runtime.enqueue(() => this.runtime.session("WASM", key, bytes));
    await this.draw(this.told.caption, 0, 1); // the first call prepares what later ones use
  }

  async draw(caption, seed, count) {
    const start = performance.now();
    const call = this.caller(caption, seed, count);
    const { data, model_ms } = await this.runtime.enqueue(async () => {
      const before = performance.now();
      const output = await call();
      return { data: output.data, model_ms: performance.now() - before };
    });
    const size = 3 * SIDE * SIDE;
    const pictures = [];
    for (let k = 0; k < count; k++) {
      pictures.push({ seed: seed + k, src: painted(data.subarray(k * size, (k + 1) * size)) });
    }
    const inside_ms = performance.now() - start;
    return { pictures, times: { model_ms, batch: count, inside_ms, inside: "page" } };
  }

  async edit(caption, request) {
    return this.editor.edit(caption, request);
  }

  /** Pictures a second, drawn one at a time: {per_second, median_ms, p90_ms, readings}. */
  async time() {
    const call = this.caller(this.told.caption, 0, 1);
    const calls = new Map([["WASM", call]]);
    const rows = await this.runtime.enqueue(() => this.measureInTurn(calls, TIMED_MS));
    const row = rows.get("WASM");
    if (row.error) throw new Error(row.error);
    return { per_second: 1000 / row.median_ms, ...row };
  }

  /** A call that draws `count` pictures from the noise of `seed`, `seed + 1` and so on. */
  caller(caption, seed, count) {
    const { noise_width } = this.told;
    const row = this.grammar.encode(caption);
    const words = new BigInt64Array(count * row.length);
    const numbers = new Float32Array(count * noise_width);
    for (let k = 0; k < count; k++) {
      words.set(row, k * row.length);
      numbers.set(noise(seed + k, noise_width), k * noise_width);
    }
    const inputs = {
      noise: { data: numbers, width: noise_width },
      words: { data: words, width: row.length },
    };
    return this.runtime.caller(this.session, inputs, count);
  }
}

async function fetched(name) {
  const answer = await fetch(name).catch(() => null);
  if (!answer?.ok) {
    const why = answer ? `the web server answered ${answer.status}` : "no answer";
    const file = name.split("?")[0];
    throw new Error(`the file ${file} could not be fetched (${why}); write the page again.`);
  }
  return answer.arrayBuffer();
}

/** A gzipped file's content; some web servers have unpacked it on the way. */
async function unpacked(buffer) {
  const bytes = new Uint8Array(buffer);
  if (bytes[0] !== 0x1f || bytes[1] !== 0x8b) return bytes;
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

/** One image (3, H, W) in [-1, 1] as the address of a PNG. */
function painted(values) {
  const canvas = document.createElement("canvas");
  canvas.width = canvas.height = SIDE;
  const context = canvas.getContext("2d");
  const image = context.createImageData(SIDE, SIDE);
  const plane = SIDE * SIDE;
  for (let p = 0; p < plane; p++) {
    for (let c = 0; c < 3; c++) image.data[4 * p + c] = (values[c * plane + p] + 1) * 127.5;
    image.data[4 * p + 3] = 255;
  }
  context.putImageData(image, 0, 0);
  return canvas.toDataURL();
}
