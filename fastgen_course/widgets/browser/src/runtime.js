// ONNX Runtime in this page: one instance and one queue for every view of every widget.

import * as ort from "onnxruntime-web/webgpu";

/** "WebGPU" and "WASM" as ONNX Runtime calls them. */
export const PROVIDERS = { WebGPU: "webgpu", WASM: "wasm" };

class Runtime {
  constructor() {
    this.controllers = new Map(); // one a widget, by its key
    this.files = new Map(); // exported networks, by their hash
    this.sessions = new Map();
    this.dispatches = 0;
    this.tail = Promise.resolve();
    this.ready = null;
    countDispatches(this);
  }

  /** Load ONNX Runtime's own WASM once; after a failure the next caller tries again. */
  start(fetchWasm) {
    this.ready ??= fetchWasm()
      .then((bytes) => {
        ort.env.wasm.wasmBinary = bytes.buffer;
        ort.env.wasm.numThreads = 1; // more would need a page isolated by its server's headers
        ort.env.logLevel = "error";
      })
      .catch((error) => {
        this.ready = null;
        throw error;
      });
    return this.ready;
  }

  /** Run jobs one after another, whoever asks: ONNX Runtime's session calls must not overlap. */
  enqueue(job) {
    const done = this.tail.then(job);
    this.tail = done.catch(() => {});
    return done;
  }

  /** A session of the model `key` on a provider; made once. Call it inside the queue. */
  async session(name, key, bytes) {
    const id = `${name} ${key}`;
    if (!this.sessions.has(id)) {
      const options = { executionProviders: [PROVIDERS[name]], logSeverityLevel: 3 };
      this.sessions.set(id, await ort.InferenceSession.create(bytes, options));
    }
    return this.sessions.get(id);
  }

  /** What the WebGPU device that ONNX Runtime took says of itself; {} where it says nothing. */
  async deviceInfo() {
    return (await ort.env.webgpu?.device)?.adapterInfo ?? {};
  }

  /** A call of `session` on the first `batch` rows; resolves to its output in the page's memory. */
  caller(session, inputs, batch) {
    const [noise, words] = session.inputNames;
    const { noise: z, words: y } = inputs;
    const feeds = {
      [noise]: new ort.Tensor("float32", z.data.subarray(0, batch * z.width), [batch, z.width]),
      [words]: new ort.Tensor("int64", y.data.subarray(0, batch * y.width), [batch, y.width]),
    };
    const wanted = session.outputNames[0];
    return async () => {
      const output = (await session.run(feeds))[wanted];
      return { dims: output.dims, data: await output.getData() };
    };
  }

  /** Run `call` once: its output, and how many GPU programs it launched. */
  async counted(call) {
    const before = this.dispatches;
    const output = await call();
    return { ...output, dispatches: this.dispatches - before };
  }
}

/** Count every compute dispatch of this page: the proof that a GPU program ran. */
function countDispatches(runtime) {
  const pass = globalThis.GPUComputePassEncoder?.prototype;
  if (!pass) return;
  for (const name of ["dispatchWorkgroups", "dispatchWorkgroupsIndirect"]) {
    const original = pass[name];
    pass[name] = function (...shape) {
      runtime.dispatches++;
      return original.apply(this, shape);
    };
  }
}

/** The page's only runtime. A bundle built from other sources keeps its own. */
export function sharedRuntime() {
  const key = `fastgen browser ${BUILD}`;
  globalThis[key] ??= new Runtime();
  return globalThis[key];
}
