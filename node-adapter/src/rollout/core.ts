// The router, whatever dialect its two sides speak: where each request goes, and the way back to it.
import { ConfigurationError } from '../errors.js';
import type { BatchResult, BatchStatus, CallOptions, ResultsOptions } from '../types.js';
import { type Comparison, Tally } from './comparison.js';
import {
  isFlagOn,
  isLocalOn,
  type Percentage,
  percentOf,
  percentOfEnvironment,
  pointOf,
  type Side,
  sideOf,
} from './route.js';
import { checkRoom, formatBatchId, type Half, halvesOf, inOrder, numbered } from './split.js';

/** Options of both routers. */
export interface RolloutOptions {
  /**
   * How many of a hundred leads go to the local side: 0 to 100, fractions too. A function is asked at each create.
   * Default: `LOCAL_LLM_PERCENT`, or 100 where that is unset.
   */
  localPercent?: Percentage;
  /**
   * Whether anything goes to the local side; asked at each create. Default: `USE_LOCAL_LLM` is on, and
   * `LOCAL_BATCH_URL` is set where `local` comes from the environment.
   */
  enabled?: () => boolean;
  /** Collects the figures of both sides as results are read. */
  comparison?: Comparison;
  /**
   * Of how many of a hundred leads a copy runs on the other side too, for the comparison. The caller's results are
   * never those of a copy, and no call waits for one. Default 0.
   */
  shadowPercent?: Percentage;
}

/** One side as the router calls it. */
export interface DialectSide<S, L> {
  status(id: string, options: CallOptions): Promise<S>;
  results(id: string, options: ResultsOptions): AsyncIterable<L>;
  cancel(id: string, options: CallOptions): Promise<S>;
}

/** What the router must know of a dialect. */
export interface Dialect<S, L> {
  readonly sides: Readonly<Record<Side, DialectSide<S, L>>>;
  /** The longest custom_id that both sides take. */
  readonly maxCustomIdChars: number;
  /** The status of the whole from those of its halves, under the caller's id. */
  merged(batchId: string, statuses: readonly [S, ...S[]]): S;
  statusOf(status: S): BatchStatus;
  resultOf(line: L): BatchResult;
}

/** What a batch on a side is to the caller's: all of it, a half of it, or a copy of some of it for the comparison. */
export type Share = 'whole' | 'half' | 'copy';

/** One create: what sticks together, and how to make a batch on a side. */
export interface Creation<Q> {
  readonly keyOf: (request: Q) => string;
  readonly create: (side: Side, requests: readonly Q[], share: Share) => Promise<string>;
}

interface Shadow {
  readonly batchId: string;
  readonly copy: Half;
  /** By custom_id, of as many as samples are wanted. */
  readonly params: ReadonlyMap<string, unknown>;
}

interface Request {
  readonly custom_id: string;
  readonly params: unknown;
}

/** Divides batches between two sides of one dialect, and reads each where it was made. */
export class RolloutCore<Q extends Request, S, L extends { readonly custom_id: string }> {
  readonly #dialect: Dialect<S, L>;
  readonly #enabled: () => boolean;
  readonly #localPercent: Percentage;
  readonly #shadowPercent: Percentage;
  readonly #comparison: Comparison | undefined;
  readonly #background = new Set<Promise<void>>();
  readonly #shadows = new Set<Shadow>();

  /** Throws ConfigurationError where copies are asked for and nothing compares them. */
  constructor(dialect: Dialect<S, L>, options: RolloutOptions, localIsGiven: boolean) {
    if (options.shadowPercent !== undefined && options.comparison === undefined) {
      throw new ConfigurationError('shadowPercent needs a comparison that takes the copies', 'shadowPercent');
    }
    this.#dialect = dialect;
    this.#enabled = options.enabled ?? (localIsGiven ? isFlagOn : isLocalOn);
    this.#localPercent = options.localPercent ?? percentOfEnvironment;
    this.#shadowPercent = options.shadowPercent ?? 0;
    this.#comparison = options.comparison;
  }

  /** The id of the batch, or of both of its halves as one. */
  async create(requests: readonly Q[], creation: Creation<Q>): Promise<string> {
    const enabled = this.#enabled();
    const percent = enabled ? percentOf(this.#localPercent, 'localPercent') : 0;
    const shadowPercent = enabled ? percentOf(this.#shadowPercent, 'shadowPercent') : 0;
    // Said before the first batch is split, not at the first that is.
    if (percent > 0 && percent < 100) checkRoom(requests, this.#dialect.maxCustomIdChars);
    const sides = requests.map((request) => sideOf(creation.keyOf(request), percent));
    const batchId = formatBatchId(await this.#createHalves(requests, sides, creation));
    // Another point than that of the rollout: else the first leads to be copied would be the first to move.
    const isCopied = (request: Q) => pointOf(`shadow:${creation.keyOf(request)}`) < shadowPercent;
    for (const side of ['local', 'remote'] as const) {
      const copied = requests.filter((request, n) => sides[n] === side && isCopied(request));
      if (copied.length > 0) this.#copy(batchId, copied, side === 'local' ? 'remote' : 'local', creation);
    }
    return batchId;
  }

  async status(batchId: string, options: CallOptions): Promise<S> {
    const [first, ...others] = halvesOf(batchId).map(({ side, id }) =>
      this.#dialect.sides[side].status(id, options),
    );
    return this.#dialect.merged(batchId, await Promise.all([first as Promise<S>, ...others]));
  }

  /** The lines in the order of the requests, where the batch was split; else as its side gives them. */
  async *results(batchId: string, options: ResultsOptions): AsyncGenerator<L, void, void> {
    const [first, ...others] = halvesOf(batchId).map((half) => this.#read(half, options));
    if (first === undefined) return;
    yield* others.length === 0 ? first : inOrder([first, ...others]);
  }

  /** Stops both halves. One that has ended by itself is no error unless all have. */
  async cancel(batchId: string, options: CallOptions): Promise<S> {
    const stops = await Promise.all(halvesOf(batchId).map((half) => this.#stop(half, options)));
    if (stops.every(({ refusal }) => refusal !== undefined)) throw stops[0]?.refusal;
    return this.#dialect.merged(batchId, stops.map(({ status }) => status) as [S, ...S[]]);
  }

  /** Resolves when what was begun on the side is done: copies made, figures noted. */
  async settled(): Promise<void> {
    while (this.#background.size > 0) await Promise.all(this.#background);
  }

  /** Compares the copies whose batches have ended by now. How many copies are still to be compared. */
  async compareShadows(): Promise<number> {
    await this.settled();
    for (const shadow of this.#shadows) await this.#compare(shadow);
    await this.settled();
    return this.#shadows.size;
  }

  async #createHalves(
    requests: readonly Q[],
    sides: readonly Side[],
    { create }: Creation<Q>,
  ): Promise<{ local?: string; remote?: string }> {
    const half = (side: Side, all: readonly Q[]) => all.filter((_, n) => sides[n] === side);
    if (!sides.includes('local')) return { remote: await create('remote', requests, 'whole') };
    if (!sides.includes('remote')) return { local: await create('local', requests, 'whole') };
    const whole = numbered(requests);
    // The local half last: it is made once under its key, however often a caller repeats what failed there.
    const remote = await create('remote', half('remote', whole), 'half');
    try {
      return { remote, local: await create('local', half('local', whole), 'half') };
    } catch (error) {
      // Nobody gets to know of this half. If it can't be stopped, it runs for nobody.
      await this.#dialect.sides.remote.cancel(remote, {}).catch(() => undefined);
      throw error;
    }
  }

  async *#read(half: Half, options: ResultsOptions): AsyncGenerator<L, void, void> {
    const lines = this.#dialect.sides[half.side].results(half.id, options);
    if (this.#comparison === undefined || options.partial === true) {
      yield* lines;
      return;
    }
    const tally = new Tally();
    let counted = true;
    for await (const line of lines) {
      try {
        tally.add(this.#dialect.resultOf(line));
      } catch {
        // A line that can't be counted is still the caller's.
        counted = false;
      }
      yield line;
    }
    if (counted) this.#inBackground(this.#record(half, tally));
  }

  async #record({ side, id }: Half, tally: Tally): Promise<void> {
    const status = await this.#dialect.sides[side].status(id, {});
    this.#comparison?.record(side, id, tally, this.#dialect.statusOf(status));
  }

  async #stop({ side, id }: Half, options: CallOptions): Promise<{ status: S; refusal?: unknown }> {
    try {
      return { status: await this.#dialect.sides[side].cancel(id, options) };
    } catch (refusal) {
      const status = await this.#dialect.sides[side].status(id, options);
      if (this.#dialect.statusOf(status).processing_status !== 'ended') throw refusal;
      return { status, refusal };
    }
  }

  #copy(batchId: string, requests: readonly Q[], side: Side, { create }: Creation<Q>): void {
    const sampled = requests.slice(0, this.#comparison?.samplesLeft ?? 0);
    const params = new Map(sampled.map((request) => [request.custom_id, request.params]));
    this.#inBackground(
      create(side, requests, 'copy').then(
        (id) => this.#shadows.add({ batchId, copy: { side, id }, params }),
        () => this.#comparison?.recordShadowFailure(),
      ),
    );
  }

  // Forgets a copy that needs no further look: compared, or its batch is gone.
  async #compare(shadow: Shadow): Promise<void> {
    const { batchId, copy, params } = shadow;
    const { sides, statusOf, resultOf } = this.#dialect;
    try {
      const statuses = [await sides[copy.side].status(copy.id, {}), await this.status(batchId, {})];
      if (statuses.some((status) => statusOf(status).processing_status !== 'ended')) return;
      const copies = new Map<string, BatchResult>();
      for await (const line of this.#read(copy, {})) copies.set(line.custom_id, resultOf(line));
      const pairs: [local: BatchResult, remote: BatchResult][] = [];
      for await (const line of this.results(batchId, {})) {
        const theirs = copies.get(line.custom_id);
        if (theirs === undefined) continue;
        pairs.push(copy.side === 'local' ? [theirs, resultOf(line)] : [resultOf(line), theirs]);
      }
      // Counted all at once, by whoever is first: what failed half way is read again.
      if (!this.#shadows.delete(shadow)) return;
      for (const [local, remote] of pairs) {
        this.#comparison?.recordPair(local, remote, params.get(local.custom_id));
      }
    } catch (error) {
      if ((error as { status?: unknown } | null)?.status !== 404) throw error;
      this.#shadows.delete(shadow);
    }
  }

  // Whatever comes of it, no caller hears of it.
  #inBackground(work: Promise<unknown>): void {
    const task: Promise<void> = work.then(
      () => undefined,
      () => undefined,
    );
    this.#background.add(task);
    task.then(() => this.#background.delete(task));
  }
}
