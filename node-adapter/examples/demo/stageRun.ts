// One stage: its batch from create to results, and the proof that every request has a result.
import {
  type BatchRequest,
  type BatchResult,
  type BatchStatus,
  cancelBatch,
  createBatch,
  getBatchResults,
  waitForBatch,
} from 'llm-batch-adapter';
import type { Progress } from './progress.js';

// Quicker than the adapter's own schedule, so that the bar moves.
const POLL_INTERVAL_MS = 250;

/** What to run. */
export interface StagePlan {
  readonly stage: string;
  readonly requests: readonly BatchRequest[];
  readonly maxWaitMs: number;
  readonly signal: AbortSignal;
  readonly progress: Progress;
}

/** What came of it. */
export interface StageRun {
  readonly stage: string;
  readonly status: BatchStatus;
  readonly results: readonly BatchResult[];
  /** The text of each succeeded request, by custom_id. */
  readonly texts: ReadonlyMap<string, string>;
  /** One line per request that has no result, a failed one, or one too many. */
  readonly faults: readonly string[];
  /** From the create to the last result, in milliseconds. */
  readonly wallMs: number;
}

/** Runs a stage. An abort cancels the batch, so that no worker goes on for nobody. */
export async function runStage(plan: StagePlan): Promise<StageRun> {
  const { stage, requests, maxWaitMs, signal, progress } = plan;
  const startedMs = performance.now();
  const { id } = await createBatch(stage, requests, { signal });
  try {
    const onProgress = ({ counts }: BatchStatus) => progress.show(counts.total - counts.pending);
    const status = await waitForBatch(id, maxWaitMs, {
      signal,
      pollIntervalMs: POLL_INTERVAL_MS,
      onProgress,
    });
    const { results } = await getBatchResults(id, { signal });
    const wallMs = performance.now() - startedMs;
    return { stage, status, results, wallMs, texts: textsOf(results), faults: faultsOf(requests, results) };
  } catch (error) {
    if (signal.aborted) await cancelBatch(id).catch(() => undefined);
    throw error;
  } finally {
    progress.close();
  }
}

function textsOf(results: readonly BatchResult[]): Map<string, string> {
  const texts = new Map<string, string>();
  for (const { custom_id, message } of results) {
    if (message !== null) texts.set(custom_id, message.content[0].text);
  }
  return texts;
}

function faultsOf(requests: readonly BatchRequest[], results: readonly BatchResult[]): string[] {
  const expected = new Set(requests.map((request) => request.custom_id));
  const faults: string[] = [];
  for (const { custom_id, status, error } of results) {
    if (!expected.delete(custom_id))
      faults.push(`${custom_id}: a result that nobody asked for, or a second one`);
    else if (status !== 'succeeded')
      faults.push(`${custom_id}: ${status}: ${error?.message ?? 'no reason given'}`);
  }
  for (const customId of expected) faults.push(`${customId}: no result`);
  return faults;
}
