// Bundle the page side and pack ONNX Runtime's WASM: `npm run setup` (or `make browser`) runs this.
// With --tidy it removes node_modules afterwards: a hundred megabytes that nothing needs any more.

import { createHash } from "node:crypto";
import { mkdir, readFile, readdir, rename, rm, writeFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { gzipSync } from "node:zlib";

import * as esbuild from "esbuild";

const here = dirname(fileURLToPath(import.meta.url));
const require = createRequire(import.meta.url);

// The same digest as fastgen_course/widgets/browser_gpu.py makes, to tell a bundle of other sources.
async function digestOfSources() {
  const names = (await readdir(join(here, "src"))).map((name) => `src/${name}`);
  names.push("build.mjs", "package-lock.json", "package.json");
  const digest = createHash("sha256");
  for (const name of names.sort()) {
    digest.update(`${name}\n`);
    digest.update(await readFile(join(here, name)));
  }
  return digest.digest("hex");
}

const sources = await digestOfSources();
const fresh = join(here, "dist.part");
await rm(fresh, { recursive: true, force: true });
await mkdir(fresh);
await esbuild.build({
  entryPoints: [join(here, "src", "widget.js")],
  outfile: join(fresh, "widget.js"),
  bundle: true,
  minify: true,
  format: "esm",
  target: "es2022",
  legalComments: "inline",
  define: { BUILD: JSON.stringify(sources.slice(0, 12)) },
  logLevel: "warning",
});

// The one WASM file that the bundle asks for by name.
const bundle = await readFile(join(fresh, "widget.js"), "utf8");
const wanted = [...new Set(bundle.match(/ort-wasm[\w.-]*\.wasm/g))];
if (wanted.length !== 1) {
  throw new Error(`the bundle names ${wanted.length} WASM files (${wanted}); it should name one`);
}
const wasm = await readFile(join(dirname(require.resolve("onnxruntime-web")), wanted[0]));
await writeFile(join(fresh, "ort.wasm.gz"), gzipSync(wasm, { level: 9 }));
await writeFile(join(fresh, "build.json"), JSON.stringify({ sources, wasm: wanted[0] }) + "\n");
await rm(join(here, "dist"), { recursive: true, force: true });
await rename(fresh, join(here, "dist"));
if (process.argv.includes("--tidy")) {
  await rm(join(here, "node_modules"), { recursive: true, force: true });
}
console.log("The browser bundle is built.");
