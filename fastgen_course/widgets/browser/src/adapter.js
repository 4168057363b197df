// What WebGPU runs on here, said honestly: hardware, software, or nothing.

// Names that software renderers give themselves, for browsers that do not mark them.
const SOFTWARE = /swiftshader|llvmpipe|lavapipe|softpipe|basic render|\bwarp\b|software/i;

/** {kind: "none" | "software" | "hardware", name, words} for this page. */
export async function findAdapter() {
  if (!navigator.gpu) {
    const why = globalThis.isSecureContext
      ? "this browser has no WebGPU"
      : "a browser gives WebGPU only to pages from https or from localhost";
    return none(why);
  }
  let adapter = null;
  try {
    adapter = await navigator.gpu.requestAdapter();
  } catch (error) {
    return none(`asking for an adapter failed: ${error.message}`);
  }
  if (!adapter) return none("this browser knows WebGPU but found no adapter for it");
  return describe(adapter.info ?? {}, adapter.isFallbackAdapter);
}

/** The same for the information of one adapter or device. */
export function describe(info, marked = false) {
  const parts = [info.vendor, info.architecture, info.device, info.description];
  const name = [...new Set(parts.filter(Boolean))].join(" ") || "an adapter without a name";
  if (info.isFallbackAdapter || marked || SOFTWARE.test(name)) {
    const words =
      `WebGPU is here on a software adapter (${name}): the CPU plays the GPU. Its pictures are ` +
      "right; its times say nothing about a GPU.";
    return { kind: "software", name, words };
  }
  return { kind: "hardware", name, words: `WebGPU is here on ${name}.` };
}

function none(why) {
  const words = `There is no WebGPU adapter (${why}), so that WASM runs alone, on the CPU.`;
  return { kind: "none", name: "", words };
}
