// Timing in a page. Its clock ticks in steps of up to 0.1 ms, so that a reading covers as many
// calls as fill READING_MS; runtimes are read in turn, so that a busy moment meets all of them.

const READING_MS = 20;
const MIN_READINGS = 3;
const MAX_READINGS = 200;
const WARM_CALLS = 10;
const STEADY = 0.1;

/**
 * Time asynchronous calls in turn. `calls` maps a name to a function that resolves when its result
 * is in the page's memory; `budget_ms` is for each. Resolves to a map of name to its figures, or to
 * {error} where a call failed.
 */
export async function measureInTurn(calls, budget_ms) {
  const rows = new Map();
  for (const [name, call] of calls) {
    rows.set(name, await guarded(() => warmed(call, budget_ms)));
  }
  const open = (row) =>
    !row.error &&
    row.readings.length < MAX_READINGS &&
    (row.readings.length < MIN_READINGS || row.spent < budget_ms);
  while ([...rows.values()].some(open)) {
    for (const [name, row] of rows) {
      if (!open(row)) continue;
      const { error } = await guarded(async () => {
        const spent = await timed(row.call, row.group);
        row.spent += spent;
        row.readings.push(spent / row.group);
        return {};
      });
      if (error) rows.set(name, { error });
      await breathe();
    }
  }
  return new Map([...rows].map(([name, row]) => [name, row.error ? row : figures(row)]));
}

async function guarded(work) {
  try {
    return await work();
  } catch (error) {
    return { error: String(error?.message ?? error) };
  }
}

/** Calls that are thrown away, until two in a row agree. */
async function warmed(call, budget_ms) {
  let last = Infinity;
  let now = await timed(call, 1);
  let spent = now;
  for (let n = 1; n < WARM_CALLS && spent < budget_ms && !steady(last, now); n++) {
    last = now;
    now = await timed(call, 1);
    spent += now;
  }
  const group = Math.max(1, Math.ceil(READING_MS / Math.max(now, 0.05)));
  return { call, group, readings: [], spent: 0 };
}

function steady(a, b) {
  return Math.abs(a - b) <= STEADY * Math.max(a, b);
}

async function timed(call, times) {
  const start = performance.now();
  for (let n = 0; n < times; n++) await call();
  return performance.now() - start;
}

function figures({ group, readings }) {
  const sorted = [...readings].sort((a, b) => a - b);
  return {
    median_ms: quantile(sorted, 0.5),
    p90_ms: quantile(sorted, 0.9),
    readings: readings.length,
    calls_a_reading: group,
  };
}

/** Linear between neighbours, as numpy.quantile. */
export function quantile(sorted, share) {
  const place = share * (sorted.length - 1);
  const low = Math.floor(place);
  const high = Math.min(low + 1, sorted.length - 1);
  return sorted[low] + (place - low) * (sorted[high] - sorted[low]);
}

/** Let the page paint and answer; a timer would wait a second in a hidden page. */
export function breathe() {
  return new Promise((resolve) => {
    const channel = new MessageChannel();
    channel.port1.onmessage = () => {
      channel.port1.close();
      resolve();
    };
    channel.port2.postMessage(null);
  });
}
