// The rollout for a service written against Anthropic's SDK: two of its clients behind the part of one that the service
// calls, `messages.batches`.
import {
  type AnthropicBatch,
  type AnthropicBatches,
  type AnthropicClient,
  type AnthropicLine,
  callOptions,
  MAX_CUSTOM_ID_CHARS,
  type Options,
  resultOf,
  statusOf,
} from './anthropic.js';
import { type DialectSide, RolloutCore, type RolloutOptions } from './core.js';
import type { Side } from './route.js';

interface AnthropicRequest {
  readonly custom_id: string;
  readonly params: object;
}

/** Options of AnthropicRouter. */
export interface AnthropicRouterOptions<Q, B, L> extends RolloutOptions {
  /** Anthropic's client as it is: `new Anthropic()`. */
  remote: AnthropicClient<Q, B, L>;
  /**
   * The same with this service behind it: `new Anthropic({ fetch: runpodFetch({ ... }) })`. A function is called when
   * that side is needed, so that nothing is asked of `LOCAL_BATCH_URL` until the environment lets requests go there.
   */
  local: AnthropicClient<Q, B, L> | (() => AnthropicClient<Q, B, L>);
  /** What sticks together: the lead's id of a request. */
  key: (request: Q) => string;
}

/**
 * Stands where a client of Anthropic's SDK stood, for `messages.batches` create, retrieve, results and cancel: batches
 * are made on two sides, by lead, and read where they were made. Errors are the SDK's own. A split batch has no
 * `results_url`: its results come from `results`, in the order of the requests.
 */
export class AnthropicRouter<Q extends AnthropicRequest, B extends AnthropicBatch, L extends AnthropicLine> {
  /** As the SDK's own. */
  readonly messages: { readonly batches: RoutedBatches<Q, B, L> };
  readonly #core: RolloutCore<Q, B, L>;

  /** Throws ConfigurationError where `shadowPercent` comes without `comparison`. */
  constructor(options: AnthropicRouterOptions<Q, B, L>) {
    const { local, remote, key } = options;
    const batchesOf = (side: Side) => clientOf(side === 'local' ? local : remote).messages.batches;
    const dialect = {
      sides: { local: routed(() => batchesOf('local')), remote: routed(() => batchesOf('remote')) },
      maxCustomIdChars: MAX_CUSTOM_ID_CHARS,
      merged: mergedBatch<B>,
      statusOf,
      resultOf,
    };
    this.#core = new RolloutCore<Q, B, L>(dialect, options, typeof local !== 'function');
    this.messages = { batches: new RoutedBatches(this.#core, batchesOf, key) };
  }

  /** Resolves when the copies are made and the figures noted that were begun on the side. */
  async settled(): Promise<void> {
    return this.#core.settled();
  }

  /** Compares the copies whose batches have ended by now. How many copies are still to be compared. */
  async compareShadows(): Promise<number> {
    return this.#core.compareShadows();
  }
}

/** The batches of both sides, as the SDK's resource has them. */
export class RoutedBatches<Q extends AnthropicRequest, B extends AnthropicBatch, L extends AnthropicLine> {
  constructor(
    private readonly core: RolloutCore<Q, B, L>,
    private readonly batchesOf: (side: Side) => AnthropicBatches<Q, B, L>,
    private readonly keyOf: (request: Q) => string,
  ) {}

  async create(body: { requests: Q[] }, options: Options = {}): Promise<B> {
    const made: B[] = [];
    const batchId = await this.core.create(body.requests, {
      keyOf: this.keyOf,
      create: async (side, requests, share) => {
        const batch = await this.batchesOf(side).create(
          { ...body, requests: [...requests] },
          share === 'copy' ? {} : options,
        );
        if (share !== 'copy') made.push(batch);
        return batch.id;
      },
    });
    return mergedBatch(batchId, made as [B, ...B[]]);
  }

  async retrieve(batchId: string, _params?: null, options: Options = {}): Promise<B> {
    return this.core.status(batchId, options);
  }

  async cancel(batchId: string, _params?: null, options: Options = {}): Promise<B> {
    return this.core.cancel(batchId, options);
  }

  async results(batchId: string, _params?: undefined, options: Options = {}): Promise<AsyncGenerator<L>> {
    return this.core.results(batchId, options);
  }
}

function clientOf<C extends object>(client: C | (() => C)): C {
  return typeof client === 'function' ? client() : client;
}

function routed<B, L>(batches: () => AnthropicBatches<never, B, L>): DialectSide<B, L> {
  return {
    status: async (id, { signal }) => batches().retrieve(id, null, callOptions(signal)),
    results: (id, { signal }) => lines(batches(), id, callOptions(signal)),
    cancel: async (id, { signal }) => batches().cancel(id, null, callOptions(signal)),
  };
}

async function* lines<L>(
  batches: AnthropicBatches<never, unknown, L>,
  id: string,
  options: Options,
): AsyncGenerator<L> {
  yield* await batches.results(id, undefined, options);
}

function mergedBatch<B extends AnthropicBatch>(batchId: string, batches: readonly [B, ...B[]]): B {
  const [first, second] = batches;
  if (second === undefined) return { ...first, id: batchId };
  const ended = batches.every((batch) => batch.processing_status === 'ended');
  const canceling = batches.some((batch) => batch.processing_status === 'canceling');
  const counts = { ...first.request_counts };
  for (const [name, times] of Object.entries(second.request_counts) as [keyof typeof counts, number][]) {
    counts[name] += times;
  }
  const earliest = (name: 'created_at' | 'expires_at') => [first[name], second[name]].sort()[0];
  return {
    ...first,
    id: batchId,
    processing_status: ended ? 'ended' : canceling ? 'canceling' : 'in_progress',
    request_counts: counts,
    created_at: earliest('created_at'),
    expires_at: earliest('expires_at'),
    ended_at: ended ? [first.ended_at, second.ended_at].sort()[1] : null,
    cancel_initiated_at: first.cancel_initiated_at ?? second.cancel_initiated_at,
    results_url: null,
  };
}
