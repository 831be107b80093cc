// A side of the router in memory, with everything that a test wants to see or to break.
import { BatchNotEndedError, ConflictError, NotFoundError } from '../../src/errors.js';
import type { BatchSide } from '../../src/rollout.js';
import type { BatchRequest, BatchResult, BatchStatus, CreateOptions } from '../../src/types.js';

interface Batch {
  readonly stage: string;
  readonly requests: readonly BatchRequest[];
  readonly options: CreateOptions;
  state: BatchStatus['processing_status'];
  canceled: boolean;
}

export class MemorySide implements BatchSide {
  readonly batches = new Map<string, Batch>();
  /** Thrown by the next creates. */
  createError: Error | undefined;
  /** Whether results come in reverse. */
  reversed = false;
  /** Lines given so far. */
  given = 0;
  /** Streams that were closed before or at their end. */
  closed = 0;

  constructor(
    private readonly idPrefix: string,
    private readonly minutes = 1,
  ) {}

  /** The custom_ids of each batch, in the order of the creates. */
  get created(): string[][] {
    return [...this.batches.values()].map(({ requests }) => requests.map(({ custom_id }) => custom_id));
  }

  endAll(): void {
    for (const batch of this.batches.values()) batch.state = 'ended';
  }

  async createBatch(stage: string, requests: readonly BatchRequest[], options: CreateOptions = {}) {
    if (this.createError !== undefined) throw this.createError;
    const id = `${this.idPrefix}_${this.batches.size.toString(16).padStart(24, '0')}`;
    this.batches.set(id, { stage, requests, options, state: 'submitted', canceled: false });
    return { id };
  }

  async getBatchStatus(id: string): Promise<BatchStatus> {
    const batch = this.#batch(id);
    const results = batch.requests.map((request) => resultOf(batch, request));
    const count = (status: string) =>
      batch.state === 'ended' ? results.filter((result) => result.status === status).length : 0;
    return {
      id,
      processing_status: batch.state,
      counts: {
        total: results.length,
        succeeded: count('succeeded'),
        errored: count('errored'),
        pending: batch.state === 'ended' ? 0 : results.length,
        ...(count('canceled') > 0 ? { canceled: count('canceled') } : {}),
      },
      created_at: '2026-08-01T00:00:00.000Z',
      updated_at: `2026-08-01T00:0${this.minutes}:00.000Z`,
      ended_at: batch.state === 'ended' ? `2026-08-01T00:0${this.minutes}:00.000Z` : null,
      gpu_ms: 1000 * results.length,
    };
  }

  async *streamBatchResults(id: string, { partial = false } = {}): AsyncGenerator<BatchResult, void, void> {
    const batch = this.#batch(id);
    if (batch.state !== 'ended' && !partial) {
      throw new BatchNotEndedError('Failed to get batch results: 400 Batch not yet complete', {
        status: 400,
        type: 'batch_not_ended',
      });
    }
    const results = batch.requests.map((request) => resultOf(batch, request));
    // Partial results are those of every second request.
    const ready = batch.state === 'ended' ? results : results.filter((_, n) => n % 2 === 0);
    try {
      for (const result of this.reversed ? ready.reverse() : ready) {
        this.given += 1;
        yield result;
      }
    } finally {
      this.closed += 1;
    }
  }

  async getBatchResults(id: string) {
    const results: BatchResult[] = [];
    for await (const result of this.streamBatchResults(id)) results.push(result);
    return { results };
  }

  async cancelBatch(id: string): Promise<BatchStatus> {
    const batch = this.#batch(id);
    if (batch.state === 'ended') {
      throw new ConflictError('Failed to cancel batch: 409 it has ended', {
        status: 409,
        type: 'conflict_error',
      });
    }
    batch.state = 'ended';
    batch.canceled = true;
    return this.getBatchStatus(id);
  }

  #batch(id: string): Batch {
    const batch = this.batches.get(id);
    if (batch !== undefined) return batch;
    throw new NotFoundError(`Failed to get batch status: 404 no batch ${id}`, {
      status: 404,
      type: 'not_found_error',
    });
  }
}

function resultOf(batch: Batch, { custom_id, params }: BatchRequest): BatchResult {
  if (batch.canceled) {
    const error = { type: 'canceled', message: 'the batch was canceled' };
    return { custom_id, status: 'canceled', message: null, usage: null, error };
  }
  const text = params.messages[0]?.content;
  if (text === 'fail') {
    const error = { type: 'model_error', message: 'it failed' };
    return { custom_id, status: 'errored', message: null, usage: null, error };
  }
  return {
    custom_id,
    status: 'succeeded',
    message: { content: [{ type: 'text', text: `re: ${text}` }] },
    usage: { input_tokens: 100, output_tokens: 10 },
    error: null,
    model: 'mistral',
    latency_ms: 500,
  };
}
