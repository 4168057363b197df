// The server draws and edits; every address is relative, so that any proxy's prefix is kept.

/** An engine of the page: `draw` and `edit` ask the server. */
export class FromServer {
  constructor(told) {
    this.words = `${told.model} draws on the server, in ONNX Runtime on one thread a worker.`;
  }

  async ready() {}

  /** {pictures: [{seed, src}], times} of a caption. */
  async draw(caption, seed, count, signal) {
    const answer = await post("draw", { caption, seed, count }, signal);
    const pictures = answer.pictures.map(({ seed, png }) => ({
      seed,
      src: `data:image/png;base64,${png}`,
    }));
    const { model_ms, batch, server_ms } = answer;
    return { pictures, times: { model_ms, batch, inside_ms: server_ms, inside: "server" } };
  }

  /** {caption, note, changed}. */
  edit(caption, request, signal) {
    return post("edit", { caption, request }, signal);
  }
}

async function post(address, content, signal) {
  let answer;
  try {
    answer = await fetch(address, {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify(content),
      signal,
    });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Error("the server does not answer; is it still running?");
  }
  const said = await answer.json().catch(() => null);
  if (answer.ok && said) return said;
  throw new Error(said?.error ?? `the server answered ${answer.status}, and nothing that says why.`);
}
