// The noise of a seed, as PyTorch draws it on a CPU: torch.randn(1, n) after manual_seed(seed).
// With it this page, the server and `python -m fastgen_course draw --seed` draw the same garment.

/** MT19937 (Matsumoto and Nishimura 1998), seeded as PyTorch seeds it. */
class Twister {
  constructor(seed) {
    this.state = new Uint32Array(624);
    this.state[0] = seed;
    for (let k = 1; k < 624; k++) {
      const last = this.state[k - 1] ^ (this.state[k - 1] >>> 30);
      this.state[k] = Math.imul(1812433253, last) + k;
    }
    this.at = 624;
  }

  next() {
    if (this.at === 624) this.twist();
    let y = this.state[this.at++];
    y ^= y >>> 11;
    y ^= (y << 7) & 0x9d2c5680;
    y ^= (y << 15) & 0xefc60000;
    return (y ^ (y >>> 18)) >>> 0;
  }

  twist() {
    const s = this.state;
    for (let k = 0; k < 624; k++) {
      const y = (s[k] & 0x80000000) | (s[(k + 1) % 624] & 0x7fffffff);
      s[k] = s[(k + 397) % 624] ^ (y >>> 1) ^ (y & 1 ? 0x9908b0df : 0);
    }
    this.at = 0;
  }

  /** Uniform in [0, 1), 24 bits. */
  uniform() {
    return (this.next() & 0xffffff) / 0x1000000;
  }

  /** Uniform in [0, 1), 53 bits. */
  uniform53() {
    const high = this.next();
    const bits = (BigInt(high) << 32n) | BigInt(this.next());
    return Number(bits & 0x1fffffffffffffn) / 2 ** 53;
  }
}

/** `count` standard normal numbers of `seed`, float32. */
export function noise(seed, count) {
  const twister = new Twister(seed);
  const f = Math.fround;
  if (count < 16) return few(twister, count);
  const data = Float32Array.from({ length: count }, () => twister.uniform());
  for (let start = 0; start + 16 <= count; start += 16) boxMuller(data, start);
  if (count % 16) {
    // The last sixteen are drawn anew, over the end of the sixteen before.
    const start = count - 16;
    for (let k = 0; k < 16; k++) data[start + k] = twister.uniform();
    boxMuller(data, start);
  }
  return data;

  function boxMuller(values, start) {
    for (let k = start; k < start + 8; k++) {
      const radius = f(Math.sqrt(f(-2 * f(Math.log(f(1 - values[k]))))));
      const theta = f(f(2 * Math.PI) * values[k + 8]);
      values[k] = radius * f(Math.cos(theta));
      values[k + 8] = radius * f(Math.sin(theta));
    }
  }
}

/** Fewer than sixteen are drawn in pairs, in double precision. */
function few(twister, count) {
  const data = new Float32Array(count);
  for (let k = 0; k < count; k += 2) {
    const first = twister.uniform53();
    const second = twister.uniform53();
    const radius = Math.sqrt(-2 * Math.log1p(-second));
    data[k] = radius * Math.cos(2 * Math.PI * first);
    if (k + 1 < count) data[k + 1] = radius * Math.sin(2 * Math.PI * first);
  }
  return data;
}
