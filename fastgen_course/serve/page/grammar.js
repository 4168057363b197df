// Captions read as fastgen_course/datasets/captions.py reads them, from the same word lists
// (grammar.json). A test runs both on the same texts: every answer and every sentence is the same.

export class CaptionError extends Error {}

const WORD = /[\p{L}\p{N}]+(?:[-'][\p{L}\p{N}]+)*/gu;

export class Grammar {
  constructor(tables) {
    this.tables = tables;
    this.slots = Object.keys(tables.slots);
    this.numbers = new Map(tables.vocabulary.map((word, number) => [word, number]));
    this.filler = new Set(tables.filler);
    this.plural = new Set(tables.plural);
    this.phrases = new Map(
      tables.phrases.map(([words, slot, value]) => [words.join(" "), { words, slot, value }]),
    );
    this.longest = Math.max(...tables.phrases.map(([words]) => words.length));
    this.heldOut = new Set(tables.held_out.map((combination) => combination.join("|")));
  }

  /** The caption's words. Throws CaptionError, one sentence, for what cannot be read. */
  words(caption) {
    const { max_characters, max_words, vocabulary } = this.tables;
    const length = [...caption].length;
    if (length > max_characters) {
      throw new CaptionError(
        `the caption has ${grouped(length)} characters; keep it under ${max_characters}.`,
      );
    }
    const words = caption.toLowerCase().match(WORD) ?? [];
    if (!words.length) {
      throw new CaptionError(
        'the caption is empty; try "a small red sneaker on a white background, sketch style".',
      );
    }
    for (const word of words) {
      if (this.numbers.has(word)) continue;
      const close = closest(word, vocabulary.slice(1));
      const hint = close ? `; did you mean "${close}"?` : ".";
      const error = new CaptionError(
        `the word "${word}" is not one that the course can draw${hint}`,
      );
      throw Object.assign(error, { word, close });
    }
    if (words.length > max_words) {
      throw new CaptionError(`the caption has ${words.length} words; keep it to ${max_words}.`);
    }
    return words;
  }

  /** A caption's attributes: slot to value, null where it is free. Throws CaptionError. */
  parse(caption) {
    const words = this.words(caption).filter((word) => !this.filler.has(word));
    const found = {};
    let at = 0;
    while (at < words.length) {
      let match = null;
      for (let length = this.longest; length > 0 && !match; length--) {
        match = this.phrases.get(words.slice(at, at + length).join(" "));
      }
      if (!match) {
        const whole = this.wholePhrase(words);
        throw new CaptionError(`"${words[at]}" alone says nothing; write "${whole}".`);
      }
      const { slot, value } = match;
      found[slot] ??= value;
      if (found[slot] !== value) throw new CaptionError(this.against(slot, found[slot], value));
      at += match.words.length;
    }
    return this.attributes(found);
  }

  /** Every slot, null where `found` has none. Throws CaptionError for an empty scene's colour. */
  attributes(found) {
    const y = Object.fromEntries(this.slots.map((slot) => [slot, found[slot] ?? null]));
    if (y.garment === "nothing" && (y.size || y.colour || y.style)) {
      throw new CaptionError(
        "an empty scene has no size, colour or style; name a garment, or leave " +
          `"${y.size || y.colour || y.style}" out.`,
      );
    }
    return y;
  }

  wholePhrase(words) {
    for (const { words: phrase } of this.phrases.values()) {
      if (phrase.length > 1 && phrase.some((word) => words.includes(word))) return phrase.join(" ");
    }
    return "a garment";
  }

  against(slot, first, second) {
    const said = `the caption asks for two values of ${slot}, "${first}" and "${second}"; keep one.`;
    if (slot !== "colour") return said;
    return `${said} (Backgrounds are ${this.tables.slots.background.join(", ")}.)`;
  }

  /** Attributes in words. */
  render(y) {
    const noun = y.garment ?? "garment";
    const article = this.plural.has(noun) || y.garment === "nothing" ? "" : "a";
    const phrase = [article, y.size, y.colour, noun].filter(Boolean).join(" ");
    const background = y.background ? ` on a ${y.background} background` : "";
    const style = y.style ? `, ${y.style} style` : "";
    return `${phrase}${background}${style}`.replace(/\ba (?=[aeiou])/g, "an ").trim();
  }

  /** A caption's word numbers, 0 after the last: BigInt64Array (max_words). */
  encode(caption) {
    const row = new BigInt64Array(this.tables.max_words);
    this.words(caption).forEach((word, k) => (row[k] = BigInt(this.numbers.get(word))));
    return row;
  }

  /** Whether it is a combination that no generator was trained on. */
  isHeldOut(y) {
    return this.heldOut.has([y.colour, y.garment, y.style].join("|"));
  }
}

/** 12345 as "12,345". */
export function grouped(number) {
  return String(number).replace(/\B(?=(\d{3})+$)/g, ",");
}

// --- the nearest word, as Python's difflib.get_close_matches(word, words, n=1) finds it ----------

export function closest(word, words, cutoff = 0.6) {
  let best = null;
  let score = cutoff;
  for (const other of words) {
    const ratio = similarity(other, word);
    if (ratio > score || (ratio === score && (best === null || other > best))) {
      best = other;
      score = ratio;
    }
  }
  return best;
}

/** Twice the matching characters over all characters (Ratcliff and Obershelp). */
function similarity(a, b) {
  const [first, second] = [[...a], [...b]];
  const matching = matched(first, second, 0, first.length, 0, second.length);
  return (2 * matching) / (first.length + second.length);
}

function matched(a, b, aLow, aHigh, bLow, bHigh) {
  let [i, j, size] = [aLow, bLow, 0];
  let lengths = new Map();
  for (let m = aLow; m < aHigh; m++) {
    const next = new Map();
    for (let n = bLow; n < bHigh; n++) {
      if (a[m] !== b[n]) continue;
      const length = (lengths.get(n - 1) ?? 0) + 1;
      next.set(n, length);
      if (length > size) [i, j, size] = [m - length + 1, n - length + 1, length];
    }
    lengths = next;
  }
  if (!size) return 0;
  return (
    size + matched(a, b, aLow, i, bLow, j) + matched(a, b, i + size, aHigh, j + size, bHigh)
  );
}
