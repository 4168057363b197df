// What a request in words asks for: fastgen_course/language/rules.py and guard.py, with the same
// word lists (grammar.json). A test runs both on the same requests.

import { CaptionError, grouped } from "./grammar.js";

const TOKEN = /[\p{L}\p{N}]+(?:'[\p{L}\p{N}]+)*|[,.;:?!]/gu;
const LETTERS = /[\p{L}\p{Nl}\p{No}]+/gu;

/** A wish that is clear and that cannot be fulfilled: nothing else may be made of it. */
export class Impossible extends CaptionError {}

export class Requests {
  constructor(grammar, tables) {
    this.grammar = grammar;
    this.tables = tables;
    const meaning = ([words, slot, value]) => [words, { slot, value }];
    this.phrases = new Map(tables.phrases.map(meaning));
    this.commands = new Map(tables.commands.map(meaning));
    const lengths = [...this.phrases.keys(), ...this.commands.keys()];
    this.longest = Math.max(...lengths.map((words) => words.split(" ").length));
    this.basic = new Set(grammar.tables.slots.colour);
    this.orders = new RegExp(tables.orders, "is");
    const names = ["articles", "not", "verbs", "colour_words", "to", "backdrops"];
    names.push("before_backdrop", "function_words", "undrawable", "foreign", "ambiguous");
    for (const name of names) this[name] = new Set(tables[name]);
    this.paleBackgrounds = new Set(Object.values(tables.pale));
  }

  /** The request on one line. Throws CaptionError for what is no request. */
  checked(text) {
    text = text.normalize("NFKC").trim().split(/\s+/).join(" ");
    if (!text) {
      throw new CaptionError(
        'the request is empty; try "make it green" or "crimson trainers".',
      );
    }
    const { max_characters } = this.grammar.tables;
    const characters = [...text];
    if (characters.length > max_characters) {
      const many = grouped(characters.length);
      throw new CaptionError(
        `the request has ${many} characters; keep it under ${max_characters}.`,
      );
    }
    const letters = characters.filter((c) => /\p{L}/u.test(c));
    if (letters.length < 2) {
      throw new CaptionError(
        "the request has no words; say in English what the picture should show.",
      );
    }
    if (this.orders.test(text)) {
      throw new CaptionError(
        "the request speaks to the program, not about the picture; " +
          'say what to draw or to change, such as "make it green".',
      );
    }
    const words = text.toLowerCase().match(LETTERS) ?? [];
    const latin = letters.filter((c) => /\p{Script=Latin}/u.test(c)).length;
    const foreign = words.filter((word) => this.foreign.has(word));
    const sure = foreign.some((word) => !this.ambiguous.has(word));
    const alone = !words.some((word) => this.function_words.has(word));
    if (latin < 0.8 * letters.length || (sure && (foreign.length >= 2 || alone))) {
      throw new CaptionError(
        "the request does not seem to be in English, the only language that the course reads; " +
          'try "make it green" or "a small red boot on a white background".',
      );
    }
    return text;
  }

  /** {wanted, removed, unknown} of a request; `source` is what it changes, or null. */
  read(text, source) {
    const tokens = tokensOf(this.checked(text));
    const { mentions, unknown } = this.understood(tokens);
    for (const word of unknown) {
      const at = tokens.indexOf(word);
      const before = tokens.slice(Math.max(0, at - 3), at);
      const compared = ["for", "like", "as", "of"].some((w) => before.includes(w));
      const after = tokens[at + 1] ?? "";
      const shaped = ["sized", "coloured", "colored", "'s"].includes(after);
      const named = this.undrawable.has(word) || this.undrawable.has(singular(word));
      if (!compared && !shaped && named) {
        throw new Impossible(
          `"${word}" is nothing that the course can draw; it draws ${this.tables.things}.`,
        );
      }
    }
    let removed = mentions.some((m) => m.slot === "remove");
    const wanted = {};
    for (const slot of this.grammar.slots) {
      const values = this.values(slot, mentions, source);
      if (values.length) wanted[slot] = values.at(-1);
    }
    if (removed && wanted.garment && wanted.garment !== source?.garment) removed = false;
    if (wanted.garment === "nothing") removed = true;
    if (source && !wanted.garment) {
      for (const m of mentions) {
        if (m.slot !== "garment" || m.value !== source.garment || !m.old) continue;
        const before = tokens.slice(Math.max(0, m.start - 3), m.start);
        removed ||= before.includes("without") || before.includes("no");
      }
    }
    return { wanted, removed, unknown };
  }

  /** The sentence about two values side by side ("a red blue shoe"), or null. */
  contradiction(text, source) {
    const tokens = tokensOf(text);
    const { mentions } = this.understood(tokens);
    for (let k = 0; k + 1 < mentions.length; k++) {
      const [first, second] = [mentions[k], mentions[k + 1]];
      if (first.slot !== second.slot || first.value === second.value || first.slot === "remove") {
        continue;
      }
      const between = tokens.slice(first.end, second.start);
      const there = source && first.value === source[first.slot];
      if (there && between.length === 1 && ["a", "an"].includes(between[0])) continue;
      const joined = between.every((word) => ["and", "a", "an", "both"].includes(word));
      if (!first.old && !second.old && joined) {
        return against(first.slot, first.value, second.value);
      }
    }
    return null;
  }

  // --- words -------------------------------------------------------------------------------------

  understood(tokens) {
    const { mentions, unknown } = this.mentions(tokens);
    this.backdropsOf(mentions, tokens);
    this.oldValues(mentions, tokens);
    return { mentions, unknown };
  }

  /** What these words say, the last also in its plural, with "-ish" or as a comparative. */
  match(words) {
    const last = words.at(-1);
    const stems = [last, singular(last)];
    for (const ending of ["ish", "er"]) {
      if (!last.endsWith(ending)) continue;
      const stem = last.slice(0, -ending.length);
      if (stem.slice(-2, -1) === stem.slice(-1)) stems.push(stem, stem.slice(0, -1), `${stem}e`);
      else stems.push(stem, `${stem}e`);
    }
    const head = words.slice(0, -1);
    for (const form of stems) {
      const key = [...head, form].join(" ");
      const found = this.commands.get(key) ?? this.phrases.get(key);
      if (found) return found;
    }
    return null;
  }

  mentions(tokens) {
    let mentions = [];
    const unknown = [];
    let at = 0;
    while (at < tokens.length) {
      let length = Math.min(this.longest, tokens.length - at);
      let found = null;
      for (; length > 0; length--) {
        found = this.match(tokens.slice(at, at + length));
        if (found) break;
      }
      if (found) {
        const words = tokens.slice(at, at + length);
        mentions.push({ ...found, start: at, end: at + length, words, old: false });
      } else {
        length = 1;
        const word = tokens[at];
        if (/^[\p{L}\p{N}]+$/u.test(word) && !this.function_words.has(word)) unknown.push(word);
      }
      at += length;
    }
    const idle = ["else", "but", "fancy", "special"];
    mentions = mentions.filter(
      (m) => !(said(m, "nothing") && idle.includes(tokens[m.end] ?? "")),
    );
    mentions = mentions.filter((m, k) => {
      const after = mentions[k + 1];
      const adjacent = after && after.start === m.end;
      const shade = m.slot === "colour" && !this.basic.has(m.words.at(-1));
      if (shade && adjacent && this.basic.has(after.words.at(-1))) return false;
      if (said(m, "little") && graded(tokens, m)) return false;
      return !(said(m, "dark") && adjacent && after.slot === "colour");
    });
    return { mentions, unknown };
  }

  /** Which colours are a backdrop's ("a pink wall") and which pale ones a garment's. */
  backdropsOf(mentions, tokens) {
    const { slots } = this.grammar.tables;
    mentions.forEach((m, k) => {
      const after = tokens[m.end] ?? "";
      let before = m.start - 1;
      while (before >= 0 && this.articles.has(tokens[before])) before--;
      const previous = before >= 0 ? tokens[before] : "";
      const next = mentions[k + 1];
      const worn =
        next?.slot === "garment" &&
        tokens.slice(m.end, next.start).every((word) => ["pair", "of"].includes(word));
      const named = this.backdrops.has(after);
      const led = this.before_backdrop.has(previous) || this.backdropBefore(mentions, tokens, k);
      if (m.slot === "colour" && (named || (led && !worn))) {
        if (this.tables.pale[m.value]) {
          m.slot = "background";
          m.value = this.tables.pale[m.value];
        } else if (named || !this.before_backdrop.has(previous)) {
          throw new Impossible(
            `there is no ${m.value} background; choose ${slots.background.join(", ")}.`,
          );
        }
      } else if (
        m.slot === "background" &&
        this.paleBackgrounds.has(m.value) &&
        this.colour_words.has(after)
      ) {
        if (!this.backdrops.has(tokens[m.end + 1] ?? "") && !led) dyed(m);
      } else if (m.slot === "background" && worn && !named) {
        if (this.paleBackgrounds.has(m.value)) dyed(m);
        else if (!led) {
          throw new Impossible(
            `a garment cannot be ${m.value}; choose ${slots.colour.join(", ")}.`,
          );
        }
      }
    });
  }

  /** "the background should be pink": a backdrop's name before it, with little between. */
  backdropBefore(mentions, tokens, index) {
    const m = mentions[index];
    const start = Math.max(index ? mentions[index - 1].end : 0, m.start - 6);
    const between = tokens.slice(start, m.start);
    const last = between.findLastIndex((word) => this.backdrops.has(word));
    if (last < 0) return false;
    const stops = ["and", ".", ";", ",", "it", "make"];
    return !between.slice(last + 1).some((word) => stops.includes(word));
  }

  /** Mark what is named only to be left: "not red", "instead of the bag", "change red to blue". */
  oldValues(mentions, tokens) {
    for (const m of mentions) {
      const before = tokens
        .slice(Math.max(0, m.start - 3), m.start)
        .filter((word) => !this.articles.has(word));
      const last = before.at(-1);
      if (last === "too" || last === "less") {
        if (m.slot === "size") m.value = this.tables.opposite[m.value];
        continue;
      }
      const pair = before.slice(-2).join(" ");
      if (this.not.has(last) || pair === "instead of" || pair === "tired of") m.old = true;
      const rest = tokens.slice(m.end, m.end + 3);
      if (rest[0] === "is" && rest.includes("wrong")) m.old = true;
    }
    mentions.forEach((m, k) => {
      for (const other of mentions.slice(k + 1)) {
        if (other.slot !== m.slot || other.old) continue;
        const between = tokens.slice(m.end, other.start);
        const turn = ["no", "sorry", "mean", "rather"].some((word) => between.includes(word));
        const stop = [",", "?", ":"].some((word) => between.includes(word));
        const verb = tokens.slice(0, m.start).some((word) => this.verbs.has(word));
        if ((turn && stop) || (verb && between.some((word) => this.to.has(word)))) m.old = true;
      }
    });
  }

  values(slot, mentions, source) {
    const asked = mentions.filter((m) => m.slot === slot && !m.old).map((m) => m.value);
    let values = [...new Set(asked)];
    const there = source?.[slot] ?? null;
    if (values.length > 1) values = values.filter((value) => value !== there);
    if (values.length > 1) throw new CaptionError(against(slot, values[0], values[1]));
    return values;
  }

  // --- applying ----------------------------------------------------------------------------------

  /** What the picture shows after a request. Throws CaptionError when it asks for nothing. */
  applied({ wanted, removed, unknown }, source) {
    if (!Object.keys(wanted).length && !removed) {
      const words = unknown.slice(0, 3).map((word) => `"${word}"`).join(", ") || "the request";
      throw new CaptionError(
        `the rules find nothing to draw in ${words}; name a size, a colour, a garment, ` +
          "a background or a style.",
      );
    }
    const found = { ...wanted };
    if (removed) {
      const background = found.background ?? source?.background;
      return this.grammar.attributes({ garment: "nothing", background });
    }
    if (source?.garment === "nothing") {
      if (!found.garment && Object.keys(found).some((slot) => slot !== "background")) {
        throw new CaptionError("the scene is empty; name the garment to put into it.");
      }
      const base = { garment: "nothing", background: source.background };
      return this.grammar.attributes({ ...base, ...found });
    }
    return this.grammar.attributes({ ...source, ...found });
  }
}

function tokensOf(text) {
  return text.toLowerCase().replaceAll("’", "'").match(TOKEN) ?? [];
}

function singular(word) {
  return word.endsWith("s") && [...word].length > 3 ? word.slice(0, -1) : word;
}

/** Whether a mention is this one word. */
function said(m, word) {
  return m.words.length === 1 && m.words[0] === word;
}

/** Whether it only grades the word that follows: "a little bigger", "a little too red". */
function graded(tokens, m) {
  const after = tokens[m.end] ?? "";
  if (m.start < 1 || tokens[m.start - 1] !== "a") return false;
  const grades = ["bit", "more", "less", "too"].includes(after);
  return grades || (after.endsWith("er") && after.length > 4);
}

function dyed(m) {
  m.slot = "colour";
  m.value = m.value.replace(/^pale /, "");
}

function against(slot, first, second) {
  return `the request asks for two values of ${slot}, "${first}" and "${second}"; keep one.`;
}
