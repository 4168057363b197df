// One widget's work, whatever the number of its views: fetch, run, time, compare, report.

import { describe, findAdapter } from "./adapter.js";
import { aligned, ask, fetchFile } from "./comm.js";
import { breathe, measureInTurn } from "./measure.js";
import { PROVIDERS } from "./runtime.js";

export class Controller {
  constructor(model, runtime, signal) {
    this.model = model;
    this.runtime = runtime;
    this.signal = signal;
    this.listeners = new Set();
    this.state = { busy: false, words: "", wrong: false, adapter: null };
  }

  /** Tell the views what changed. */
  say(change) {
    Object.assign(this.state, change);
    for (const listener of this.listeners) listener();
  }

  async look() {
    this.say({ adapter: await findAdapter() });
  }

  /** The button: draw and time with what the widget's fields say. Never throws. */
  async run() {
    if (this.state.busy) return;
    this.say({ busy: true, wrong: false, words: "Waiting for the kernel." });
    const start = performance.now();
    try {
      const inputs = await this.inputs();
      await this.runtime.start(() => this.file("wasm", "ONNX Runtime"));
      const bytes = await this.generator(inputs.key);
      this.say({ words: "Waiting for the page's other widgets." });
      const report = await this.runtime.enqueue(() => this.report(inputs, bytes));
      report.total_s = (performance.now() - start) / 1000;
      this.model.set("report", report);
      this.model.save_changes();
      this.say({ busy: false, words: "Done." });
    } catch (error) {
      this.say({ busy: false, wrong: true, words: String(error?.message ?? error) });
    }
  }

  async inputs() {
    const message = {
      kind: "inputs",
      caption: this.model.get("caption"),
      seed: this.model.get("seed"),
    };
    const { content, buffers } = await ask(this.model, { message }, this.signal);
    const [noise, words] = buffers.map(aligned);
    return {
      ...message,
      key: content.key,
      batches: content.batches,
      noise: { data: new Float32Array(noise), width: content.noise_width },
      words: { data: new BigInt64Array(words), width: content.words_width },
    };
  }

  /** The exported network, fetched once a page. */
  async generator(key) {
    const { files } = this.runtime;
    if (!files.has(key)) files.set(key, await this.file("model", "the generator"));
    return files.get(key);
  }

  file(name, title) {
    const progress = (share) =>
      this.say({ words: `Fetching ${title} from the kernel: ${Math.round(100 * share)} %.` });
    return fetchFile(this.model, name, this.signal, progress);
  }

  /** Everything that is measured, inside the page's queue. */
  async report(inputs, bytes) {
    const hidden = document.hidden;
    const names = Object.keys(PROVIDERS).filter(
      (name) => name !== "WebGPU" || this.state.adapter?.kind !== "none",
    );
    const sessions = new Map();
    const rows = [];
    for (const name of names) {
      this.say({ words: `Preparing ${name}.` });
      await breathe();
      try {
        sessions.set(name, await this.runtime.session(name, inputs.key, bytes));
      } catch (error) {
        rows.push({ runtime: name, batch: null, error: String(error?.message ?? error) });
      }
    }
    let adapter = this.state.adapter;
    if (sessions.has("WebGPU")) {
      const info = await this.runtime.deviceInfo();
      if (info.vendor || info.description) adapter = describe(info, adapter.kind === "software");
      this.say({ adapter });
    }
    const pictures = {};
    for (const batch of inputs.batches) {
      rows.push(...(await this.batch(inputs, batch, sessions, pictures)));
    }
    return {
      adapter,
      rows,
      pictures,
      caption: inputs.caption,
      seed: inputs.seed,
      agent: navigator.userAgent,
      cores: navigator.hardwareConcurrency ?? null,
      hidden: hidden || document.hidden,
    };
  }

  async batch(inputs, batch, sessions, pictures) {
    const calls = new Map();
    const facts = new Map();
    for (const [name, session] of sessions) {
      this.say({ words: `${name} draws ${batch}.` });
      await breathe();
      try {
        const call = this.runtime.caller(session, inputs, batch);
        const start = performance.now();
        const output = await this.runtime.counted(call);
        const first_ms = performance.now() - start; // WebGPU compiles its programs here
        const difference = await this.difference(inputs, batch, output);
        facts.set(name, { dispatches: output.dispatches, difference, first_ms });
        calls.set(name, call);
        pictures[name] = sheet(output); // batches ascend: the largest stays
      } catch (error) {
        facts.set(name, { error: String(error?.message ?? error) });
      }
    }
    this.say({ words: `Timing batch ${batch}.` });
    const times = await measureInTurn(calls, 1000 * this.model.get("seconds"));
    return [...facts].map(([name, fact]) => ({
      runtime: name,
      batch,
      ...times.get(name),
      ...fact,
    }));
  }

  /** The kernel runs the same words and noise in ONNX Runtime and says how far off these are. */
  async difference(inputs, batch, output) {
    const { caption, seed } = inputs;
    const message = { kind: "compare", caption, seed, batch };
    const buffers = [output.data];
    const { content } = await ask(this.model, { message, buffers }, this.signal);
    return content.difference;
  }
}

/** Images (B, 3, H, W) in [-1, 1] as bytes (B, H, W, 3), rounded as the kernel's to_uint8 does. */
function sheet({ dims, data }) {
  const [batch, channels, height, width] = dims;
  const plane = height * width;
  const bytes = new Uint8ClampedArray(batch * plane * channels); // clamps and rounds half to even
  for (let b = 0; b < batch; b++)
    for (let c = 0; c < channels; c++)
      for (let p = 0; p < plane; p++)
        bytes[(b * plane + p) * channels + c] = (data[(b * channels + c) * plane + p] + 1) * 127.5;
  return new DataView(bytes.buffer);
}
