// Anthropic's batches as its SDK gives them, told in the adapter's own words. Names no version of the SDK: only the
// fields that are read.
import type { BatchResult, BatchResultMessage, BatchStatus } from '../types.js';

/** A batch. */
export interface AnthropicBatch {
  id: string;
  processing_status: 'in_progress' | 'canceling' | 'ended';
  request_counts: {
    processing: number;
    succeeded: number;
    errored: number;
    canceled: number;
    expired: number;
  };
  created_at: string;
  expires_at: string;
  ended_at: string | null;
  cancel_initiated_at: string | null;
  results_url: string | null;
}

/** A line of the results. */
export interface AnthropicLine {
  custom_id: string;
  result: {
    type: 'succeeded' | 'errored' | 'canceled' | 'expired';
    message?: AnthropicMessage;
    error?: { error: { type: string; message: string } };
  };
}

interface AnthropicMessage {
  model: string;
  content: readonly { type: string; text?: string }[];
  usage: {
    input_tokens: number;
    output_tokens: number;
    cache_creation_input_tokens?: number | null;
    cache_read_input_tokens?: number | null;
  };
}

/** The SDK's options that are passed on. */
export interface Options {
  signal?: AbortSignal;
}

/** The part of `client.messages.batches` that is called, in the SDK's own types: a request, a batch, a line. */
export interface AnthropicBatches<Q, B, L> {
  create(body: { requests: Q[] }, options?: Options): PromiseLike<B>;
  retrieve(id: string, params?: null, options?: Options): PromiseLike<B>;
  cancel(id: string, params?: null, options?: Options): PromiseLike<B>;
  results(id: string, params?: undefined, options?: Options): PromiseLike<AsyncIterable<L>>;
}

/** A client of Anthropic's SDK. */
// biome-ignore lint/suspicious/noExplicitAny: the SDK's own type of a request is narrower than any of ours
export interface AnthropicClient<Q = any, B = AnthropicBatch, L = AnthropicLine> {
  messages: { batches: AnthropicBatches<Q, B, L> };
}

/** The longest custom_id that Anthropic takes. */
export const MAX_CUSTOM_ID_CHARS = 64;

/** The SDK's options of a call that may be aborted. */
export function callOptions(signal: AbortSignal | undefined): Options {
  return signal === undefined ? {} : { signal };
}

/** A batch in our words. Anthropic keeps no time of the last change. */
export function statusOf(batch: AnthropicBatch): BatchStatus {
  const { processing, succeeded, errored, canceled, expired } = batch.request_counts;
  return {
    id: batch.id,
    processing_status: batch.processing_status === 'ended' ? 'ended' : 'processing',
    counts: {
      total: processing + succeeded + errored + canceled + expired,
      succeeded,
      errored,
      pending: processing,
      ...(canceled > 0 ? { canceled } : {}),
      ...(expired > 0 ? { expired } : {}),
    },
    created_at: batch.created_at,
    updated_at: batch.ended_at ?? batch.cancel_initiated_at ?? batch.created_at,
    ended_at: batch.ended_at,
    expires_at: batch.expires_at,
    cancel_requested_at: batch.cancel_initiated_at,
  };
}

/** A line in our words. Whatever did not succeed has an error. */
export function resultOf({ custom_id, result }: AnthropicLine): BatchResult {
  const { type: status, message, error } = result;
  if (status !== 'succeeded' || message === undefined) {
    const reason = error?.error ?? { type: status, message: `the request was ${status}` };
    return {
      custom_id,
      status,
      message: null,
      usage: null,
      error: { type: reason.type, message: reason.message },
    };
  }
  const { model, content, usage } = message;
  const cached = (usage.cache_creation_input_tokens ?? 0) + (usage.cache_read_input_tokens ?? 0);
  return {
    custom_id,
    status,
    message: { content: contentOf(content) },
    usage: { input_tokens: usage.input_tokens + cached, output_tokens: usage.output_tokens },
    error: null,
    model,
  };
}

// As our own results: text and tools; without a tool there is always one text.
function contentOf(blocks: AnthropicMessage['content']): BatchResultMessage['content'] {
  const kept = blocks.filter(({ type }) => type === 'text' || type === 'tool_use');
  if (kept.some(({ type }) => type === 'tool_use')) return kept as unknown as BatchResultMessage['content'];
  return [{ type: 'text', text: kept.map(({ text }) => text ?? '').join('') }];
}
