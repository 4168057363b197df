// The kernel's side of the conversation: one request, one answer, over the widget's own comm.
// Nothing else is used, so that a token, a proxy or a strict server is never in the way.

// Views and pages share one kernel; each answers to its own numbers alone.
const PAGE = Math.random().toString(36).slice(2);
let serial = 0;

/** Ask the kernel: resolves to {content, buffers}, rejects with the kernel's own sentence. */
export function ask(model, content, signal) {
  const id = `${PAGE}-${serial++}`;
  return new Promise((resolve, reject) => {
    const leave = () => {
      model.off("msg:custom", hear);
      signal?.removeEventListener("abort", abandon);
    };
    const hear = (answer, buffers) => {
      if (answer.id !== id) return;
      leave();
      if (answer.kind === "error") reject(new Error(answer.text));
      else resolve({ content: answer, buffers });
    };
    const abandon = () => {
      leave();
      reject(new Error("the widget was closed while it waited for the kernel"));
    };
    if (signal?.aborted) return abandon();
    signal?.addEventListener("abort", abandon);
    model.on("msg:custom", hear);
    model.send({ ...content.message, id }, undefined, content.buffers ?? []);
  });
}

/** A file of the kernel's, asked for piece by piece, each piece after the last, then unpacked. */
export async function fetchFile(model, name, signal, onProgress) {
  const pieces = [];
  let total = 1;
  for (let index = 0; index < total; index++) {
    const message = { kind: "piece", name, index };
    const { content, buffers } = await ask(model, { message }, signal);
    total = content.total;
    pieces.push(buffers[0]);
    onProgress((index + 1) / total);
  }
  const stream = new Blob(pieces).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

/** A copy of a buffer as it came over the comm (a DataView), aligned for typed arrays. */
export function aligned(view) {
  return view.buffer.slice(view.byteOffset, view.byteOffset + view.byteLength);
}
