// Every public type: what goes in, what comes back, and the options of each call.
import type { Clock } from './clock.js';

/** The stages that the service routes by default: `sales_intel` and `polish` to the large model, the others to the small. */
export type KnownStage = 'sales_intel' | 'subject' | 'email' | 'polish';

/** A stage's name: the four known ones are completed by editors; any other that the service is configured for is fine. */
export type Stage = KnownStage | (string & {});

/** The models that a request may ask for, whatever its stage. */
export type ModelHint = 'mistral' | 'llama-70b';

/** Weight in the fair queue: a batch of a higher priority gets a larger share of the workers. */
export type Priority = 'low' | 'normal' | 'high';

/** A piece of text. */
export interface TextBlock {
  /** Always `text`. */
  type: 'text';
  /** The text. */
  text: string;
}

/** A model's call of a tool. */
export interface ToolUseBlock {
  /** Always `tool_use`. */
  type: 'tool_use';
  /** The call's name, for its result. */
  id: string;
  /** The tool's name. */
  name: string;
  /** What the tool is called with. */
  input: Record<string, unknown>;
}

/** What a tool answered; stands before any text of its message, which follows that of the call. */
export interface ToolResultBlock {
  /** Always `tool_result`. */
  type: 'tool_result';
  /** The `id` of the call. */
  tool_use_id: string;
  /** The answer. */
  content?: string | TextBlock[] | null;
  /** True if the tool failed. */
  is_error?: boolean | null;
}

/** One turn of the conversation. */
export interface BatchMessage {
  /** Who speaks. */
  role: 'user' | 'assistant';
  /** What is said; never empty. Calls are the assistant's, results the user's. */
  content: string | (TextBlock | ToolUseBlock | ToolResultBlock)[];
}

/** A tool that the model may call and the caller runs. */
export interface Tool {
  /** 1 to 128 letters, digits, underscores and hyphens. */
  name: string;
  /** What it does, for the model. */
  description?: string;
  /** The JSON Schema of its input. */
  input_schema: object;
  /** Makes an answer whose input does not fit the schema `errored`. Default false. */
  strict?: boolean | null;
}

/** Whether the model may (`auto`), must (`any`, `tool`) or must not (`none`) call a tool. */
export type ToolChoice =
  | {
      /** Whether it calls, and which, is up to the model; or that it must call some tool. */
      type: 'auto' | 'any';
      /** True for one call at most. */
      disable_parallel_tool_use?: boolean;
    }
  | {
      /** It must call one tool. */
      type: 'tool';
      /** That tool's name. */
      name: string;
      /** Changes nothing: it is one call. */
      disable_parallel_tool_use?: boolean;
    }
  | {
      /** It calls none. */
      type: 'none';
    };

/** What an answer must be, in OpenAI's shape. An answer that is not so is `errored` with the type `model_error`. */
export type ResponseFormat =
  | {
      /** Any text: also where the stage has a schema of its own. */
      type: 'text';
    }
  | {
      /** Any JSON object. */
      type: 'json_object';
    }
  | {
      /** JSON that a schema accepts. */
      type: 'json_schema';
      /** The schema and notes to it. */
      json_schema: {
        /** The JSON Schema. References stay inside it; nothing is fetched. */
        schema: object;
        /** Taken and ignored. */
        name?: string;
        /** Taken and ignored. */
        description?: string;
        /** Taken and ignored: the schema always holds. */
        strict?: boolean | null;
      };
    };

/** The parameters of one request. Fields not named here are kept and handed to the engine. */
export interface BatchParams {
  /** Instructions that stand above the conversation; may be absent. */
  system?: string | TextBlock[];
  /** The conversation; at least one message. */
  messages: BatchMessage[];
  /** The most tokens to generate, from 1 to the model's limit. Default 2048. */
  max_tokens?: number;
  /** Sampling temperature, 0 to 2. Default 0.2. */
  temperature?: number;
  /** The tools on offer. */
  tools?: Tool[] | null;
  /** Whether one of them must be called. Default `{ type: 'auto' }`. */
  tool_choice?: ToolChoice | null;
  /** Asks for JSON. Without it the stage's own schema holds, if the service has one. */
  response_format?: ResponseFormat | null;
  /** `retry` asks up to twice more, with other seeds, where the answer is not as asked. Default `error`. */
  on_invalid?: 'error' | 'retry';
  /** Any further sampling parameter. */
  // biome-ignore lint/suspicious/noExplicitAny: with unknown, a caller's interface would not be assignable
  [parameter: string]: any;
}

/** What the caller knows about a request. Only `model_hint` changes anything; fields not named here are kept. */
export interface BatchMetadata {
  /** Routes this request to that model, whatever the stage says. */
  model_hint?: ModelHint;
  /** The caller's own lead id. */
  leadId?: string;
  /** The caller's own account id. */
  accountId?: string;
  /** Anything else the caller wants to note. */
  // biome-ignore lint/suspicious/noExplicitAny: with unknown, a caller's interface would not be assignable
  [note: string]: any;
}

/** One prompt of a batch. */
export interface BatchRequest {
  /** The caller's name for it: any text of 1 to 256 characters, unique in the batch; comes back byte for byte. */
  custom_id: string;
  /** The prompt and its parameters. */
  params: BatchParams;
  /** Routing hint and the caller's notes. */
  metadata?: BatchMetadata;
  /** Any further field; sent as it is. */
  // biome-ignore lint/suspicious/noExplicitAny: with unknown, a caller's interface would not be assignable
  [field: string]: any;
}

/** `collected`: stored. `submitted`: handed to a model endpoint. `processing`: a worker began. `ended`: every result is there. */
export type ProcessingStatus = 'collected' | 'submitted' | 'processing' | 'ended';

/** How many requests of a batch stand where; the parts always sum to `total`. */
export interface BatchCounts {
  /** All requests of the batch. */
  total: number;
  /** Answered. */
  succeeded: number;
  /** Failed for good. */
  errored: number;
  /** Not finished yet. */
  pending: number;
  /** Stopped by a cancel; absent where it is 0. */
  canceled?: number;
  /** Not run before the batch expired; absent where it is 0. */
  expired?: number;
}

/** Tokens read and written. */
export interface BatchUsage {
  /** Tokens of the prompts. */
  input_tokens: number;
  /** Tokens generated. */
  output_tokens: number;
}

/** Where a batch stands. */
export interface BatchStatus {
  /** The batch's id. */
  id: string;
  /** How far it is; never goes back. */
  processing_status: ProcessingStatus;
  /** Live counts. */
  counts: BatchCounts;
  /** When it was created (ISO 8601). */
  created_at: string;
  /** When it last moved on (ISO 8601). */
  updated_at: string;
  /** The stage it was created for; null if it was created without one. */
  stage?: string | null;
  /** Its weight in the fair queue. */
  priority?: Priority;
  /** Tokens of the finished requests. */
  usage?: BatchUsage;
  /** Milliseconds that GPU workers spent on the batch, all workers together. */
  gpu_ms?: number;
  /** How many requests each model serves. */
  models?: Record<string, number>;
  /** The part of the counts that never goes back, even if a worker dies. */
  settled?: Record<ResultStatus, number>;
  /** How often a part of the batch was handed to a model endpoint. */
  attempts?: number;
  /** How often a worker was lost with work of this batch; the work is run again. */
  lost_attempts?: number;
  /** How often a part was halved to find a request that kills its workers. */
  splits?: number;
  /** When requests that have not run are given up (ISO 8601). */
  expires_at?: string | null;
  /** When it ended (ISO 8601); null before. */
  ended_at?: string | null;
  /** When a cancel was asked for (ISO 8601); null if none was. */
  cancel_requested_at?: string | null;
  /** The batch whose failed requests it runs again; null if it is no retry. */
  retry_of?: string | null;
  /** How far the telling of its end has come; null if it was created without a `callbackUrl`. */
  callback?: CallbackStatus | null;
}

/** How far the call to a batch's `callbackUrl` has come. */
export interface CallbackStatus {
  /** The host that is called; the rest of the URL may hold a token and is not shown. */
  host: string;
  /** `pending` until the receiver took the event; `failed` after the last attempt. */
  state: 'pending' | 'delivered' | 'failed';
  /** How often it was tried. */
  attempts: number;
  /** Why the last attempt failed; null if it did not. */
  error: string | null;
}

/** How one request ended. */
export type ResultStatus = 'succeeded' | 'errored' | 'canceled' | 'expired';

/** A block of an answer. */
export type ContentBlock = TextBlock | ToolUseBlock;

/** What the model answered. */
export interface BatchResultMessage {
  /** The text, as one block. With tools on offer there may be calls behind it or in its place: take it as `ContentBlock[]` then. */
  content: [TextBlock, ...TextBlock[]];
  /** Why the answer ends where it does; absent from batches that ran before the service said so. */
  stop_reason?: 'end_turn' | 'max_tokens' | 'stop_sequence' | 'tool_use';
  /** The stop sequence that was met; null if none was. */
  stop_sequence?: string | null;
}

/** Why a request has no answer. */
export interface BatchError {
  /** A word for programs, such as `invalid_request_error`, `model_error`, `worker_error`, `canceled` or `expired`. */
  type: string;
  /** A sentence for people. */
  message: string;
}

/** The outcome of one request. Whatever is not `succeeded` has a non-null `error`. */
export interface BatchResult {
  /** The caller's name for the request, byte for byte. */
  custom_id: string;
  /** How it ended. */
  status: ResultStatus;
  /** The answer; null unless `succeeded`. */
  message: BatchResultMessage | null;
  /** The tokens it took; null where nothing ran. */
  usage: BatchUsage | null;
  /** Why there is no answer; null if `succeeded`. */
  error: BatchError | null;
  /** The model that answered. */
  model?: string;
  /** From the engine taking the request to its last token, in milliseconds. */
  latency_ms?: number;
}

/** All results of a batch, in the order of its requests. */
export interface BatchResultsResponse {
  /** One per request. */
  results: BatchResult[];
}

/** One page of the list of batches, newest first. */
export interface BatchList {
  /** The status of each batch. */
  batches: BatchStatus[];
  /** Give it as `page` to get the next page; null on the last. */
  next_page: string | null;
}

/** The answer to a delete. */
export interface DeletedBatch {
  /** The id of the batch that is gone. */
  id: string;
  /** Always true. */
  deleted: true;
}

/** What keeps work from an endpoint that can't do it. */
export interface Breaker {
  /** `closed`: it gets what it can take. `open`: it gets nothing. `half_open`: it gets one piece of work to try. */
  state: 'closed' | 'open' | 'half_open';
  /** `refused`: it refused jobs. `deaths`: its workers die. null while `closed`. */
  cause: 'refused' | 'deaths' | null;
  /** Seconds until it is tried again; 0 unless `open`. */
  resting_s: number;
  /** How often it refused in a row. */
  refusals: number;
  /** How many of its workers died since it last proved that it works. */
  worker_deaths: number;
}

/** What is known of one model's endpoint. */
export interface EndpointHealth {
  /** Its id at RunPod. */
  id: string;
  /** True if it answers. */
  ok: boolean;
  /** Why it does not; absent if it does. */
  error?: string;
  /** Its circuit breaker; null where the service can't read it. */
  breaker?: Breaker | null;
  /** What RunPod reports of it, such as `jobs` and `workers`. */
  [figure: string]: unknown;
}

/** Whether the service can do its work, and what it says of its parts. */
export interface HealthReport {
  /** True if state, storage and the model endpoints all answer, and no endpoint's workers keep dying. */
  ready: boolean;
  /** Each model's endpoint, by the model's name. */
  endpoints?: Record<string, EndpointHealth>;
  /** What else the service reports. */
  [part: string]: unknown;
}

/** The service's figures: queue depth, latencies, successes and errors by model and more. */
export type Metrics = Record<string, unknown>;

/** Options of every call. */
export interface CallOptions {
  /** Aborts the call, its retries and its waits; the call then rejects with the signal's reason. */
  signal?: AbortSignal;
}

/** Options of `createBatch`. */
export interface CreateOptions extends CallOptions {
  /**
   * Names this create: the same key with the same body is the same batch, with another body a ConflictError.
   * A random one is made if absent, so that the adapter's own retries never make a second batch.
   */
  idempotencyKey?: string;
  /** Weight in the fair queue. Default `normal`. */
  priority?: Priority;
  /** Seconds after which requests that have not run are given up: 10 to 604,800. Default: the service's, a day. */
  expiresInS?: number;
  /** Called back at the batch's end with a signed `batch.ended` event: an https URL. */
  callbackUrl?: string;
  /**
   * Names the upload of a batch that goes in parts: called again with the same key and requests after a crash, it ends
   * in the same batch, and parts that arrived before are kept. Default: the idempotency key, else a random one.
   */
  uploadKey?: string;
  /** Called whenever a part has arrived. */
  onUpload?: (progress: UploadProgress) => void;
}

/** How much of a batch has arrived at the service. */
export interface UploadProgress {
  /** Parts. */
  parts: number;
  /** Requests in them. */
  requests: number;
  /** Bytes of JSON in them. */
  bytes: number;
}

/** Options of `retryFailed`. */
export interface RetryOptions extends CallOptions {
  /** Names this retry. Without one a batch has a single retry, however often it is asked for. */
  idempotencyKey?: string;
}

/** Options of `getBatchResults` and `streamBatchResults`. */
export interface ResultsOptions extends CallOptions {
  /** Before the end, give what is finished instead of throwing BatchNotEndedError. */
  partial?: boolean;
}

/** Options of `listBatches`. */
export interface ListOptions extends CallOptions {
  /** Batches a page, 1 to 1000. Default 20. */
  limit?: number;
  /** The `next_page` of the page before. */
  page?: string;
}

/** Options of `waitForBatch`. */
export interface WaitOptions extends CallOptions {
  /** Called with each status, the last one included. */
  onProgress?: (status: BatchStatus) => void;
  /** Polls at this steady interval, in milliseconds, instead of 1 s growing by half up to 30 s. */
  pollIntervalMs?: number;
}

/** Options of LlmBatchClient. */
export interface ClientOptions {
  /** The batch endpoint: `https://api.runpod.ai/v2/<endpoint id>`. */
  baseUrl: string;
  /** The RunPod API key. Never shown in an error or when the client is printed. */
  apiKey: string;
  /** Used in place of the global `fetch`. */
  fetch?: typeof globalThis.fetch;
  /** Limit of one HTTP call in milliseconds. Default 90,000; RunPod's edge cuts calls at about 100,000. */
  timeoutMs?: number;
  /** Limit of one operation with all its retries and polls, in milliseconds. Default 600,000. */
  operationTimeoutMs?: number;
  /** How often a failed try is repeated. Default 5. */
  maxRetries?: number;
  /** Time and chance, for tests that must not wait. */
  clock?: Clock;
}
