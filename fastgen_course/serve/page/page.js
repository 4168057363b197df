// The page: a caption in, four pictures out, and a change in words. `page.json` says who draws, the
// server (from_server.js) or the page itself (in_page.js); all else is the same.

import { Editor } from "./edits.js";
import { FromServer } from "./from_server.js";
import { CaptionError, Grammar } from "./grammar.js";
import { InPage } from "./in_page.js";

const $ = (id) => document.getElementById(id);
const CALM_MS = 250; // what is typed is read out when the typing pauses

class Page {
  constructor(told, tables) {
    this.told = told;
    this.grammar = new Grammar(tables.captions);
    const editor = new Editor(this.grammar, tables);
    const Engine = told.engine === "server" ? FromServer : InPage;
    this.engine = new Engine(told, this.grammar, editor);
    this.shown = null; // {caption, seed, pictures}
    this.wholes = [];
    this.running = null;
    this.caption = $("caption");
    this.seed = $("seed");
    this.request = $("request");
  }

  async start() {
    this.caption.value = this.told.caption;
    this.seed.max = this.told.max_seed - this.told.variants;
    this.showVocabulary();
    this.caption.addEventListener("input", () => this.calmly(() => this.validate()));
    this.seed.addEventListener("input", () => this.validSeed());
    $("draw").addEventListener("submit", (event) => this.submitted(event, () => this.draw()));
    $("edit").addEventListener("submit", (event) => this.submitted(event, () => this.edit()));
    $("others").addEventListener("click", () => this.others());
    $("time").addEventListener("click", () => this.time());
    this.validate();
    await this.engine.ready((words) => say("engine", words));
    say("engine", this.engine.words);
    $("timing").hidden = !this.engine.time;
    this.enable(true);
    await this.draw();
  }

  submitted(event, act) {
    event.preventDefault();
    return act();
  }

  calmly(act) {
    clearTimeout(this.timer);
    this.timer = setTimeout(act, CALM_MS);
  }

  enable(on) {
    for (const button of document.querySelectorAll("button")) button.disabled = !on;
  }

  // --- what is typed -----------------------------------------------------------------------------

  /** The caption's attributes, or null; says beside the field what was read or what is wrong. */
  validate() {
    clearTimeout(this.timer);
    try {
      const y = this.grammar.parse(this.caption.value);
      this.mark("caption", this.reading(y));
      return y;
    } catch (error) {
      if (!(error instanceof CaptionError)) throw error;
      this.mark("caption", sentence(error), true);
      if (error.close) $("caption-says").append(" ", this.suggestion(error));
      return null;
    }
  }

  reading(y) {
    const { slots } = this.grammar;
    const free = slots.filter((slot) => y[slot] === null);
    if (free.length === slots.length) return "Anything goes: the noise decides.";
    const read = slots.filter((slot) => y[slot]).map((slot) => `${slot} ${y[slot]}`);
    const open = y.garment === "nothing" ? [] : free;
    const rest = open.length ? ` Left to the noise: ${open.join(", ")}.` : "";
    const unseen = this.grammar.isHeldOut(y)
      ? ` No model saw a ${y.colour} ${y.garment} in ${y.style} style while it was trained.`
      : "";
    return `Read as ${read.join(", ")}.${rest}${unseen}`;
  }

  suggestion({ word, close }) {
    const button = element("button", `Use “${close}”`);
    Object.assign(button, { type: "button", className: "plain" });
    button.addEventListener("click", () => {
      const at = this.caption.value.toLowerCase().indexOf(word);
      const { value } = this.caption;
      this.caption.value = value.slice(0, at) + close + value.slice(at + word.length);
      this.caption.focus();
      this.validate();
    });
    return button;
  }

  /** The seed, or null. */
  validSeed() {
    const seed = this.seed.value.trim() === "" ? NaN : Number(this.seed.value);
    const most = Number(this.seed.max);
    const fine = Number.isInteger(seed) && seed >= 0 && seed <= most;
    const wrong = `The seed must be a whole number from 0 to ${most}.`;
    this.mark("seed", fine ? "" : wrong, !fine);
    return fine ? seed : null;
  }

  mark(name, words, wrong = false) {
    const field = $(name);
    field.setAttribute("aria-invalid", String(wrong));
    say(`${name === "request" ? "edit" : name}-says`, words, wrong);
  }

  // --- drawing -----------------------------------------------------------------------------------

  /** Draw what the fields say. Resolves to whether it was drawn. */
  async draw() {
    const y = this.validate();
    const seed = this.validSeed();
    if (!y || seed === null) {
      (y ? this.seed : this.caption).focus();
      return false;
    }
    this.running?.abort();
    const running = new AbortController();
    this.running = running;
    const caption = this.caption.value;
    const start = performance.now();
    try {
      const count = this.told.variants;
      const { pictures, times } = await this.engine.draw(caption, seed, count, running.signal);
      if (running.signal.aborted) return false;
      await this.show("now", caption, pictures);
      this.shown = { caption, seed, pictures };
      this.sayTimes(pictures.length, times, performance.now() - start);
      return true;
    } catch (error) {
      if (error.name !== "AbortError") say("times", sentence(error), true);
      return false;
    }
  }

  others() {
    const seed = this.validSeed() ?? 0;
    const next = seed + this.told.variants;
    this.seed.value = next <= Number(this.seed.max) ? next : 0;
    return this.draw();
  }

  async show(place, caption, pictures) {
    const items = pictures.map(({ seed, src }, k) => {
      const image = element("img");
      Object.assign(image, { src, width: 28, height: 28 });
      image.alt = `Picture ${k + 1} of ${pictures.length}: ${caption}`;
      const figure = element("figure");
      figure.append(image, element("figcaption", `seed ${seed}`));
      const item = element("li");
      item.append(figure);
      return item;
    });
    await Promise.all(items.map((item) => item.querySelector("img").decode()));
    $(place).replaceChildren(...items);
  }

  sayTimes(count, times, whole_ms) {
    this.wholes.push(whole_ms / count);
    const shared = times.batch > count ? ` in one call with ${times.batch - count} of others` : "";
    const model = `model ${ms(times.model_ms / times.batch)}${shared}`;
    const inside = `${times.inside} ${ms(times.inside_ms / count)}`;
    let said = `Time per picture: ${model}, ${inside}, until you see it ${ms(whole_ms / count)}`;
    if (this.wholes.length > 2) {
      const median = [...this.wholes].sort((a, b) => a - b)[this.wholes.length >> 1];
      said += ` (median of ${this.wholes.length}: ${ms(median)})`;
    }
    say("times", `${said}.`);
  }

  // --- changing in words -------------------------------------------------------------------------

  async edit() {
    const y = this.validate();
    if (!y) {
      this.caption.focus();
      return;
    }
    try {
      const done = await this.engine.edit(this.caption.value, this.request.value);
      if (!done.changed) return this.mark("request", done.note);
      const before = this.shown;
      this.caption.value = done.caption;
      this.mark("request", done.note);
      if ((await this.draw()) && before) {
        say("before-caption", before.caption);
        await this.show("before", before.caption, before.pictures);
        $("earlier").hidden = false;
      }
      this.request.select();
    } catch (error) {
      this.mark("request", sentence(error), true);
      this.request.focus();
    }
  }

  // --- timing ------------------------------------------------------------------------------------

  async time() {
    this.enable(false);
    say("speed", "Drawing for two seconds.");
    try {
      const { per_second, median_ms, p90_ms, readings } = await this.engine.time();
      const figures = `median ${ms(median_ms)}, p90 ${ms(p90_ms)}, ${readings} readings`;
      say("speed", `${per_second.toFixed(0)} pictures a second, one at a time (${figures}).`);
      $("speed").dataset.figures = JSON.stringify({ per_second, median_ms, p90_ms, readings });
    } catch (error) {
      say("speed", sentence(error), true);
    }
    this.enable(true);
  }

  showVocabulary() {
    const { slots, ways } = this.grammar.tables;
    for (const [slot, values] of Object.entries(slots)) {
      const said = values.map((value) => ways[value].join(" or ")).join(", ");
      $("vocabulary").append(element("dt", slot), element("dd", said));
    }
  }
}

function element(tag, text = "") {
  const made = document.createElement(tag);
  made.textContent = text;
  return made;
}

function say(id, words, wrong = false) {
  $(id).textContent = words;
  $(id).classList.toggle("wrong", wrong);
}

function ms(value) {
  return `${value >= 99.5 ? value.toFixed(0) : value.toPrecision(2)} ms`;
}

function sentence(error) {
  const words = String(error?.message ?? error);
  return words.charAt(0).toUpperCase() + words.slice(1);
}

async function json(name) {
  const answer = await fetch(name, { cache: "no-cache" });
  if (!answer.ok) throw new Error(`the file ${name} could not be fetched; start the page again.`);
  return answer.json();
}

try {
  const [told, tables] = await Promise.all([json("page.json"), json("grammar.json")]);
  await new Page(told, tables).start();
} catch (error) {
  say("engine", sentence(error), true);
}
