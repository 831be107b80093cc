// The adapter that the app came with: the same four functions over the former service's own HTTP.
import { setTimeout as sleep } from 'node:timers/promises';

export interface BatchRequest {
  custom_id: string;
  params: {
    system?: string;
    messages: { role: 'user' | 'assistant'; content: string }[];
    max_tokens?: number;
    temperature?: number;
  };
  metadata?: { model_hint?: 'mistral' | 'llama-70b'; leadId?: string; accountId?: string };
}

export interface BatchStatus {
  id: string;
  processing_status: 'collected' | 'submitted' | 'processing' | 'ended';
  counts: { total: number; succeeded: number; errored: number; pending: number };
  created_at: string;
  updated_at: string;
}

export interface BatchResult {
  custom_id: string;
  status: 'succeeded' | 'errored' | 'canceled' | 'expired';
  message: { content: [{ type: 'text'; text: string }] } | null;
  usage: { input_tokens: number; output_tokens: number } | null;
  error: { type: string; message: string } | null;
}

export async function createBatch(stage: string, requests: readonly BatchRequest[]): Promise<{ id: string }> {
  return call<{ id: string }>('create batch', '/batches', { stage, requests });
}

export async function getBatchStatus(batchId: string): Promise<BatchStatus> {
  return call<BatchStatus>('get batch status', `/batches/${batchId}`);
}

export async function getBatchResults(batchId: string): Promise<{ results: BatchResult[] }> {
  return call<{ results: BatchResult[] }>('get batch results', `/batches/${batchId}/results`);
}

export async function waitForBatch(batchId: string, maxWaitMs = 30 * 60 * 1000): Promise<BatchStatus> {
  const deadline = Date.now() + maxWaitMs;
  for (let intervalMs = 1000; ; intervalMs = Math.min(30_000, intervalMs * 1.5)) {
    const status = await getBatchStatus(batchId);
    if (status.processing_status === 'ended') return status;
    if (Date.now() >= deadline) throw new Error(`Batch ${batchId} did not complete within ${maxWaitMs}ms`);
    await sleep(intervalMs);
  }
}

async function call<T>(what: string, path: string, body?: unknown): Promise<T> {
  const response = await fetch(`${process.env['FORMER_BATCH_URL']}${path}`, {
    ...(body === undefined ? {} : { method: 'POST', body: JSON.stringify(body) }),
    headers: { 'content-type': 'application/json' },
    signal: AbortSignal.timeout(60_000),
  });
  const text = await response.text();
  if (!response.ok) throw new Error(`Failed to ${what}: ${response.status} ${text}`);
  return JSON.parse(text) as T;
}
