// The functions that an app imports. Each reads LOCAL_BATCH_URL and RUNPOD_API_KEY when it is called.
import { DEFAULT_MAX_WAIT_MS } from './client.js';
import { clientFromEnvironment } from './environment.js';
import type {
  BatchList,
  BatchRequest,
  BatchResult,
  BatchResultsResponse,
  BatchStatus,
  CallOptions,
  CreateOptions,
  DeletedBatch,
  HealthReport,
  ListOptions,
  Metrics,
  ResultsOptions,
  RetryOptions,
  Stage,
  WaitOptions,
} from './types.js';

export type {
  BatchRequest,
  BatchResult,
  BatchResultsResponse,
  BatchStatus,
  Stage,
} from './types.js';

/** Submits a batch of any size. Throws an error that begins `Failed to create batch: <status> <body>`. */
export async function createBatch(
  stage: Stage,
  requests: Iterable<BatchRequest> | AsyncIterable<BatchRequest>,
  options?: CreateOptions,
): Promise<{ id: string }> {
  return clientFromEnvironment().createBatch(stage, requests, options);
}

/** Where a batch stands. Throws an error that begins `Failed to get batch status: <status> <body>`. */
export async function getBatchStatus(batchId: string, options?: CallOptions): Promise<BatchStatus> {
  return clientFromEnvironment().getBatchStatus(batchId, options);
}

/**
 * All results of an ended batch, in the order of its requests.
 * Throws an error that begins `Failed to get batch results: <status> <body>`; before the end its status is 400 and its
 * body says `Batch not yet complete`.
 */
export async function getBatchResults(
  batchId: string,
  options?: ResultsOptions,
): Promise<BatchResultsResponse> {
  return clientFromEnvironment().getBatchResults(batchId, options);
}

/** The results of an ended batch one by one, read page by page as they are taken. */
export async function* streamBatchResults(
  batchId: string,
  options?: ResultsOptions,
): AsyncGenerator<BatchResult, void, void> {
  yield* clientFromEnvironment().streamBatchResults(batchId, options);
}

/**
 * Waits for a batch's end and gives its last status. Polls from 1 s, growing by half, up to every 30 s.
 * Throws `Batch <id> did not complete within <ms>ms` at the limit.
 */
export async function waitForBatch(
  batchId: string,
  maxWaitMs: number = DEFAULT_MAX_WAIT_MS,
  options?: WaitOptions,
): Promise<BatchStatus> {
  return clientFromEnvironment().waitForBatch(batchId, maxWaitMs, options);
}

/** Stops a batch: what has not finished becomes `canceled`. Gives its status. */
export async function cancelBatch(batchId: string, options?: CallOptions): Promise<BatchStatus> {
  return clientFromEnvironment().cancelBatch(batchId, options);
}

/** Deletes an ended batch with all its results. */
export async function deleteBatch(batchId: string, options?: CallOptions): Promise<DeletedBatch> {
  return clientFromEnvironment().deleteBatch(batchId, options);
}

/** A new batch of an ended batch's requests that errored or expired. Called again, it gives the same batch. */
export async function retryFailed(batchId: string, options?: RetryOptions): Promise<{ id: string }> {
  return clientFromEnvironment().retryFailed(batchId, options);
}

/** One page of all batches, newest first. */
export async function listBatches(options?: ListOptions): Promise<BatchList> {
  return clientFromEnvironment().listBatches(options);
}

/** Whether the service can do its work. */
export async function checkHealth(options?: CallOptions): Promise<HealthReport> {
  return clientFromEnvironment().checkHealth(options);
}

/** The service's figures. */
export async function getMetrics(options?: CallOptions): Promise<Metrics> {
  return clientFromEnvironment().getMetrics(options);
}
