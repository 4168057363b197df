// What one view shows: two fields, a button, the adapter, a table and the pictures. All of it is
// drawn from the widget's state, so that every view, and a page loaded again, shows the same.

import { aligned } from "./comm.js";

const SIDE = 28;
const COLUMNS = 8;
const HEADS = [
  "runtime",
  "batch",
  "median ms",
  "p90 ms",
  "pictures/s",
  "first call ms",
  "readings × calls",
  "GPU dispatches",
  "difference from the kernel",
];

export class View {
  constructor(model, controller, el) {
    this.model = model;
    this.controller = controller;
    this.caption = field("text", model.get("caption"), "caption");
    this.seed = field("number", model.get("seed"), "seed");
    Object.assign(this.seed, { min: 0, step: 1 });
    this.button = element("button", "Draw and time in this page");
    this.adapter = element("p", "", "fastgen-adapter");
    this.status = element("p", "", "fastgen-status");
    this.status.setAttribute("role", "status");
    this.table = element("div");
    this.pictures = element("div", "", "fastgen-pictures");
    const form = element("div", "", "fastgen-form");
    form.append(labelled("caption", this.caption), labelled("seed", this.seed), this.button);
    const root = element("div", "", "fastgen-browser");
    root.append(form, this.adapter, this.status, this.table, this.pictures);
    el.replaceChildren(root);

    this.caption.addEventListener("change", () => this.keep("caption", this.caption.value));
    this.seed.addEventListener("change", () => {
      const seed = Math.trunc(Number(this.seed.value));
      if (Number.isSafeInteger(seed) && seed >= 0) this.keep("seed", seed);
      else this.seed.value = model.get("seed");
    });
    this.caption.addEventListener("keydown", (event) => {
      if (event.key === "Enter") this.start();
    });
    this.button.addEventListener("click", () => this.start());
    this.follow = {
      "change:caption": () => (this.caption.value = model.get("caption")),
      "change:seed": () => (this.seed.value = model.get("seed")),
      "change:report": () => this.showReport(),
    };
    for (const [event, act] of Object.entries(this.follow)) model.on(event, act);
    this.showState = () => this.drawState();
    controller.listeners.add(this.showState);
    this.drawState();
    this.showReport();
  }

  close() {
    for (const [event, act] of Object.entries(this.follow)) this.model.off(event, act);
    this.controller.listeners.delete(this.showState);
  }

  keep(name, value) {
    this.model.set(name, value);
    this.model.save_changes();
  }

  start() {
    this.keep("caption", this.caption.value);
    this.controller.run();
  }

  drawState() {
    const { busy, words, wrong, adapter } = this.controller.state;
    this.button.disabled = busy;
    this.status.textContent = words;
    this.status.classList.toggle("fastgen-wrong", wrong);
    this.adapter.textContent = adapter?.words ?? "Looking for a WebGPU adapter.";
  }

  showReport() {
    const report = this.model.get("report");
    if (!report?.rows) return;
    this.showPictures(report);
    const table = element("table");
    table.append(element("caption", `“${report.caption}”, seed ${report.seed}`), line("th", HEADS));
    for (const row of report.rows) table.append(line("td", cells(row)));
    this.table.replaceChildren(table);
    if (report.hidden) {
      const words = "The page was hidden meanwhile: browsers slow such pages down. Time it again.";
      this.table.append(element("p", words, "fastgen-wrong"));
    }
  }

  showPictures({ caption, pictures }) {
    const figures = Object.entries(pictures).map(([runtime, view]) => {
      const figure = element("figure");
      figure.append(draw(new Uint8Array(aligned(view)), runtime, caption));
      figure.append(element("figcaption", `drawn by ${runtime} in this page`));
      return figure;
    });
    this.pictures.replaceChildren(...figures);
  }
}

function cells(row) {
  if (row.error) {
    const failed = `failed: ${row.error}`;
    return [row.runtime, row.batch ?? "", failed, ...Array(HEADS.length - 3).fill("")];
  }
  return [
    row.runtime,
    row.batch,
    short(row.median_ms),
    short(row.p90_ms),
    short((1000 * row.batch) / row.median_ms),
    short(row.first_ms),
    `${row.readings} × ${row.calls_a_reading}`,
    row.dispatches,
    row.difference.toExponential(1),
  ];
}

function short(value) {
  return value >= 100 ? value.toFixed(0) : value.toPrecision(3);
}

function draw(bytes, runtime, caption) {
  const count = bytes.length / (3 * SIDE * SIDE);
  const columns = Math.min(COLUMNS, count);
  const canvas = document.createElement("canvas");
  canvas.width = columns * SIDE;
  canvas.height = Math.ceil(count / columns) * SIDE;
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", `${count} pictures of “${caption}”, drawn by ${runtime}`);
  const context = canvas.getContext("2d");
  for (let n = 0; n < count; n++) {
    const picture = context.createImageData(SIDE, SIDE);
    for (let p = 0; p < SIDE * SIDE; p++) {
      for (let c = 0; c < 3; c++) picture.data[4 * p + c] = bytes[3 * (n * SIDE * SIDE + p) + c];
      picture.data[4 * p + 3] = 255;
    }
    context.putImageData(picture, (n % columns) * SIDE, Math.floor(n / columns) * SIDE);
  }
  return canvas;
}

function element(tag, text = "", name = "") {
  const made = document.createElement(tag);
  made.textContent = text;
  made.className = name;
  return made;
}

function field(type, value, name) {
  const input = document.createElement("input");
  Object.assign(input, { type, value, name });
  // JupyterLab would take letters typed here for its own shortcuts.
  input.setAttribute("data-lm-suppress-shortcuts", "true");
  return input;
}

function labelled(text, input) {
  const label = element("label", `${text} `);
  label.append(input);
  return label;
}

function line(tag, texts) {
  const row = element("tr");
  row.append(...texts.map((text) => element(tag, String(text))));
  return row;
}
