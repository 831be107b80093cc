// A batch service in memory behind the fake queue endpoint: a batch ends after a few looks, results come in pages.
import type { BatchRequest, BatchResult, BatchStatus } from '../../src/types.js';
import { completed, type Received, type Reply, refused } from './fakeRunpod.js';

const MODEL_BY_STAGE: Record<string, string> = {
  sales_intel: 'llama-70b',
  subject: 'mistral',
  email: 'mistral',
  polish: 'llama-70b',
};
const LOOKS_TO_END = 2;
const RESULTS_PER_PAGE = 3;

interface Batch {
  readonly stage: string;
  readonly requests: readonly BatchRequest[];
  looks: number;
}

/** What the service does wrong, by custom_id. */
export type Fault = 'errored' | 'missing';

/** A script for startFakeRunpod. */
export function fakeService(faults: Readonly<Record<string, Fault>> = {}): (call: Received) => Reply {
  const batches = new Map<string, Batch>();
  return ({ input }) => {
    if (input['operation'] === 'create') {
      const id = `batch_${String(batches.size).padStart(24, '0')}`;
      const requests = input['requests'] as BatchRequest[];
      batches.set(id, { stage: String(input['stage']), requests, looks: 0 });
      return completed({ id });
    }
    const id = String(input['id']);
    const batch = batches.get(id);
    if (batch === undefined) return refused(404, 'not_found_error', 'no such batch');
    if (input['operation'] === 'status') return completed(look(id, batch));
    if (input['operation'] === 'results') return completed(pageOf(batch, faults, Number(input['page'] ?? 0)));
    return refused(400, 'invalid_request_error', 'unknown operation');
  };
}

function look(id: string, batch: Batch): BatchStatus {
  batch.looks += 1;
  const total = batch.requests.length;
  const done = Math.min(total, Math.floor((total * batch.looks) / LOOKS_TO_END));
  return {
    id,
    processing_status: done === total ? 'ended' : 'processing',
    counts: { total, succeeded: done, errored: 0, pending: total - done },
    created_at: '2026-08-01T00:00:00Z',
    updated_at: '2026-08-01T00:00:01Z',
    gpu_ms: 1_500,
    usage: { input_tokens: 100 * total, output_tokens: 20 * total },
    models: { [MODEL_BY_STAGE[batch.stage] ?? 'mistral']: total },
  };
}

function pageOf(batch: Batch, faults: Readonly<Record<string, Fault>>, start: number) {
  const end = start + RESULTS_PER_PAGE;
  const results = batch.requests
    .slice(start, end)
    .filter(({ custom_id }) => faults[custom_id] !== 'missing')
    .map((request, n) => resultOf(batch, request, faults[request.custom_id], start + n));
  return { results, next_page: end < batch.requests.length ? String(end) : null };
}

function resultOf(batch: Batch, request: BatchRequest, fault: Fault | undefined, n: number): BatchResult {
  const { custom_id } = request;
  if (fault === 'errored') {
    const error = { type: 'worker_error', message: 'the worker died twice on it' };
    return { custom_id, status: 'errored', message: null, usage: null, error };
  }
  return {
    custom_id,
    status: 'succeeded',
    message: { content: [{ type: 'text', text: `<${batch.stage} ${custom_id}>` }] },
    usage: { input_tokens: 100, output_tokens: 20 },
    error: null,
    model: MODEL_BY_STAGE[batch.stage] ?? 'mistral',
    latency_ms: 100 * (n + 1),
  };
}
