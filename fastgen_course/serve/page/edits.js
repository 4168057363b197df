// A caption changed by a request in words, as fastgen_course/language/caption_edit.py changes it
// with keyword rules: what the caption leaves open stays open.

import { CaptionError } from "./grammar.js";
import { Requests } from "./requests.js";

export class Editor {
  constructor(grammar, tables) {
    this.grammar = grammar;
    this.requests = new Requests(grammar, tables.rules);
    this.filledIn = tables.filled_in;
    this.addWords = new Set(tables.rules.add_words);
  }

  /** {caption, note, changed} for a caption and a request. Throws CaptionError, one sentence. */
  edit(caption, request) {
    const { slots } = this.grammar;
    const before = this.grammar.parse(caption);
    let sources = [null]; // without a garment nothing is there that could be kept or taken away
    if (before.garment) {
      sources = this.filledIn.map((values) => this.filled(before, values));
      if (slots.every((slot) => sources[0][slot] === sources[1][slot])) sources.pop();
    }
    const answers = sources.map((source) => this.apply(source, request));
    const after = {};
    for (const slot of slots) {
      const values = new Set(answers.map(({ y }) => y[slot]));
      after[slot] = values.size === 1 ? answers[0].y[slot] : null;
    }
    if (!before.garment && after.garment !== "nothing") {
      for (const slot of slots) after[slot] ??= before[slot];
    }
    const note = `${this.changes(before, after)} ${answers[0].aside}`.trim();
    const changed = slots.some((slot) => before[slot] !== after[slot]);
    return { caption: this.grammar.render(this.grammar.attributes(after)), note, changed };
  }

  filled(y, values) {
    const slots = y.garment === "nothing" ? ["background"] : this.grammar.slots;
    const filled = { ...y };
    for (const slot of slots) filled[slot] ??= values[slot];
    return filled;
  }

  /** One request on one description: its attributes, and what was left aside. */
  apply(source, text) {
    const request = this.requests.checked(text);
    const sentence = this.requests.contradiction(request, source);
    if (sentence) throw new CaptionError(sentence);
    const reading = this.requests.read(request, source);
    const y = this.requests.applied(reading, source);
    this.oneGarment(request, source, y);
    const unknown = [...new Set(reading.unknown)].map((word) => `"${word}"`).join(", ");
    const aside = unknown ? `The rules do not know ${unknown}; they left it aside.` : "";
    return { y, aside };
  }

  /** Refuse "add a bag" to a scene that has a coat: a scene holds one garment. */
  oneGarment(request, source, y) {
    if (!source?.garment || source.garment === "nothing") return;
    if (y.garment === source.garment || y.garment === "nothing") return;
    const words = request.toLowerCase().replaceAll(",", " ").split(/\s+/);
    if (words.some((word) => this.addWords.has(word))) {
      throw new CaptionError(
        `a scene holds one garment and this one has a ${source.garment}; ` +
          `write "replace it with a ${y.garment}".`,
      );
    }
  }

  changes(before, after) {
    const changed = this.grammar.slots
      .filter((slot) => before[slot] !== after[slot])
      .map((slot) => `${slot} ${before[slot] ?? "free"} → ${after[slot] ?? "free"}`);
    if (!changed.length) return "Nothing changes: that is there already.";
    return `Changed: ${changed.join(", ")}.`;
  }
}
