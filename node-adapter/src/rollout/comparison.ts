// What the canary is judged by: the figures of both sides, and what they answered to the same requests.
import type { BatchResult, BatchStatus } from '../types.js';
import type { Side } from './route.js';

/** US dollars; data that goes out of date. */
export interface RolloutPrices {
  /** Per second of one worker with all its GPUs, by our model: `{ mistral: 0.00031, 'llama-70b': 2 * 0.00076 }`. */
  workerUsdPerSecond: Readonly<Record<string, number>>;
  /** Per million tokens, by the managed model's name or how it begins: `{ 'claude-haiku-4-5': { input, output } }`. */
  managedUsdPerMillionTokens: Readonly<Record<string, { readonly input: number; readonly output: number }>>;
}

/** What a Comparison is made with. */
export interface ComparisonOptions {
  /** Without prices the report has no costs. */
  prices?: RolloutPrices;
  /** How many requests to keep with both answers. They hold prompts and completions. Default 0: none is kept. */
  samples?: number;
}

/** Nearest-rank percentiles, in milliseconds. */
export interface Percentiles {
  p50: number;
  p95: number;
}

/** The figures of one side. */
export interface SideReport {
  batches: number;
  requests: number;
  succeeded: number;
  errored: number;
  canceled: number;
  expired: number;
  /** Errored and expired among all that were not canceled, 0 to 1; null of nothing. */
  errorRate: number | null;
  /** How many errors there were of each type. */
  errors: Record<string, number>;
  /** From a batch's creation to its end, over requests; null where no batch says when it ended. */
  turnaroundMs: Percentiles | null;
  /** From the engine taking a request to its last token; null where the side does not say. */
  latencyMs: Percentiles | null;
  inputTokens: number;
  outputTokens: number;
  /** Busy GPU time of the local side, tokens of the remote one; null without a price for all of it. */
  costUsd: number | null;
}

/** How one side answered a sample. */
export interface SampleAnswer {
  status: BatchResult['status'];
  text: string | null;
  error: BatchResult['error'];
  usage: BatchResult['usage'];
}

/** One request with both answers. Holds a prompt and completions. */
export interface Sample {
  customId: string;
  /** The request's parameters, prompt included. */
  params: unknown;
  local: SampleAnswer;
  remote: SampleAnswer;
}

/** Both sides, and the requests that ran on both. */
export interface ComparisonReport {
  local: SideReport;
  remote: SideReport;
  /** Requests that ran on both sides, by who answered. */
  pairs: { both: number; localOnly: number; remoteOnly: number; neither: number };
  /** Copies that could not be made. */
  shadowsFailed: number;
  samples: Sample[];
}

/** The results of one batch, counted as they go by. */
export class Tally {
  readonly counts: Record<BatchResult['status'], number> = {
    succeeded: 0,
    errored: 0,
    canceled: 0,
    expired: 0,
  };
  readonly errors = new Map<string, number>();
  readonly tokens = new Map<string, { input: number; output: number }>();
  readonly latenciesMs: number[] = [];

  add({ status, error, usage, model = '', latency_ms }: BatchResult): void {
    this.counts[status] = (this.counts[status] ?? 0) + 1;
    if (status === 'errored' && error !== null) {
      this.errors.set(error.type, (this.errors.get(error.type) ?? 0) + 1);
    }
    if (latency_ms !== undefined) this.latenciesMs.push(latency_ms);
    if (usage === null) return;
    const sum = this.tokens.get(model) ?? { input: 0, output: 0 };
    this.tokens.set(model, {
      input: sum.input + usage.input_tokens,
      output: sum.output + usage.output_tokens,
    });
  }

  /** All requests. */
  get requests(): number {
    return sumOf(Object.values(this.counts));
  }
}

interface Recorded {
  readonly side: Side;
  readonly tally: Tally;
  readonly status: BatchStatus;
}

/** Collects what a router sees. Holds a few numbers per request, and no text unless samples were asked for. */
export class Comparison {
  readonly #prices: RolloutPrices | undefined;
  readonly #maxSamples: number;
  // By batch, so that one that is read again does not count again.
  readonly #recorded = new Map<string, Recorded>();
  readonly #pairs = { both: 0, localOnly: 0, remoteOnly: 0, neither: 0 };
  readonly #samples: Sample[] = [];
  #shadowsFailed = 0;

  constructor({ prices, samples = 0 }: ComparisonOptions = {}) {
    this.#prices = prices;
    this.#maxSamples = samples;
  }

  /** How many more samples are kept. */
  get samplesLeft(): number {
    return this.#maxSamples - this.#samples.length;
  }

  /** Notes an ended batch of one side. */
  record(side: Side, batchId: string, tally: Tally, status: BatchStatus): void {
    this.#recorded.set(`${side}:${batchId}`, { side, tally, status });
  }

  /** Notes both answers to one request. */
  recordPair(local: BatchResult, remote: BatchResult, params: unknown): void {
    const [byLocal, byRemote] = [local, remote].map((result) => result.status === 'succeeded');
    if (byLocal) this.#pairs[byRemote ? 'both' : 'localOnly'] += 1;
    else this.#pairs[byRemote ? 'remoteOnly' : 'neither'] += 1;
    if (this.samplesLeft <= 0) return;
    this.#samples.push({
      customId: local.custom_id,
      params,
      local: answerOf(local),
      remote: answerOf(remote),
    });
  }

  /** Notes that a copy could not be made. */
  recordShadowFailure(): void {
    this.#shadowsFailed += 1;
  }

  /** Everything so far. */
  report(): ComparisonReport {
    return {
      local: this.#sideReport('local'),
      remote: this.#sideReport('remote'),
      pairs: { ...this.#pairs },
      shadowsFailed: this.#shadowsFailed,
      samples: [...this.#samples],
    };
  }

  #sideReport(side: Side): SideReport {
    const batches = [...this.#recorded.values()].filter((batch) => batch.side === side);
    const tallies = batches.map((batch) => batch.tally);
    const count = (status: BatchResult['status']) => sumOf(tallies.map((tally) => tally.counts[status]));
    const failed = count('errored') + count('expired');
    const settled = count('succeeded') + failed;
    const tokens = tallies.map((tally) => [...tally.tokens.values()]);
    return {
      batches: batches.length,
      requests: sumOf(tallies.map((tally) => tally.requests)),
      succeeded: count('succeeded'),
      errored: count('errored'),
      canceled: count('canceled'),
      expired: count('expired'),
      errorRate: settled === 0 ? null : failed / settled,
      errors: errorsOf(tallies),
      turnaroundMs: turnaroundsOf(batches),
      latencyMs: latenciesOf(tallies),
      inputTokens: sumOf(tokens.map((models) => sumOf(models.map((sum) => sum.input)))),
      outputTokens: sumOf(tokens.map((models) => sumOf(models.map((sum) => sum.output)))),
      costUsd: this.#costUsd(batches),
    };
  }

  #costUsd(batches: readonly Recorded[]): number | null {
    const prices = this.#prices;
    if (prices === undefined) return null;
    const costs = batches.map((batch) =>
      batch.side === 'local' ? gpuCostUsd(batch, prices) : tokenCostUsd(batch.tally, prices),
    );
    return costs.some((cost) => cost === undefined) ? null : sumOf(costs.map((cost) => cost ?? 0));
  }
}

// A batch says what its workers took together: where it used several models, it is divided by what each of them wrote.
function gpuCostUsd({ tally, status }: Recorded, prices: RolloutPrices): number | undefined {
  const written = sumOf([...tally.tokens.values()].map((sum) => sum.output));
  let cost = 0;
  for (const [model, sum] of tally.tokens) {
    const price = prices.workerUsdPerSecond[model];
    if (price === undefined || status.gpu_ms === undefined) return undefined;
    const share = tally.tokens.size === 1 ? 1 : sum.output / Math.max(1, written);
    cost += (status.gpu_ms / 1000) * share * price;
  }
  return cost;
}

function tokenCostUsd(tally: Tally, prices: RolloutPrices): number | undefined {
  let cost = 0;
  for (const [model, sum] of tally.tokens) {
    const price = priceOf(model, prices);
    if (price === undefined) return undefined;
    cost += (sum.input * price.input + sum.output * price.output) / 1e6;
  }
  return cost;
}

// The API answers with the dated name of the model that was asked for.
function priceOf(model: string, { managedUsdPerMillionTokens: prices }: RolloutPrices) {
  const names = Object.keys(prices).filter((name) => model.startsWith(name));
  const longest = names.sort((a, b) => b.length - a.length)[0];
  return longest === undefined ? undefined : prices[longest];
}

function answerOf({ status, message, error, usage }: BatchResult): SampleAnswer {
  const texts = message?.content.map((block) => (block.type === 'text' ? block.text : '')) ?? null;
  return { status, text: texts === null ? null : texts.join(''), error, usage };
}

function errorsOf(tallies: readonly Tally[]): Record<string, number> {
  const errors: Record<string, number> = {};
  for (const tally of tallies) {
    for (const [type, times] of tally.errors) errors[type] = (errors[type] ?? 0) + times;
  }
  return errors;
}

interface Timed {
  readonly valueMs: number;
  readonly times: number;
}

function turnaroundsOf(batches: readonly Recorded[]): Percentiles | null {
  const times: Timed[] = [];
  for (const { tally, status } of batches) {
    const valueMs = Date.parse(status.ended_at ?? '') - Date.parse(status.created_at);
    if (!Number.isNaN(valueMs)) times.push({ valueMs, times: tally.requests });
  }
  return percentilesOf(times);
}

function latenciesOf(tallies: readonly Tally[]): Percentiles | null {
  const times: Timed[] = [];
  for (const { latenciesMs } of tallies) {
    for (const valueMs of latenciesMs) times.push({ valueMs, times: 1 });
  }
  return percentilesOf(times);
}

function percentilesOf(values: readonly Timed[]): Percentiles | null {
  const sorted = [...values].sort((a, b) => a.valueMs - b.valueMs);
  const total = sumOf(sorted.map((timed) => timed.times));
  const at = (percent: number) => {
    const rank = Math.max(1, Math.ceil((percent / 100) * total));
    let seen = 0;
    return sorted.find((timed) => {
      seen += timed.times;
      return seen >= rank;
    })?.valueMs;
  };
  const [p50, p95] = [at(50), at(95)];
  return p50 === undefined || p95 === undefined ? null : { p50, p95 };
}

function sumOf(values: readonly number[]): number {
  return values.reduce((sum, value) => sum + value, 0);
}
