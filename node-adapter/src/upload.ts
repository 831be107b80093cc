// Submitting a batch of any size: in one call where it fits into one, else in parts and then by reference to them.
//
// A part is resent by itself, under the upload's key and its own number, and any number of times: the service keeps it
// once. Nothing of a batch runs before the create at the end, and an upload without one expires by itself.
import { randomUUID } from 'node:crypto';
import { cutParts, type Frame, type Part } from './parts.js';
import { linkedAbort, unlessAborted } from './signals.js';
import type { Transport } from './transport.js';
import type { BatchRequest, CreateOptions, Stage } from './types.js';
import { frameOf } from './wire.js';

// Enough to hide the time between two calls; each holds a part.
const PARTS_AT_ONCE = 3;

/** Submits the batch; gives the output of the create. The first error stops what is on the way. */
export async function submitBatch(
  transport: Transport,
  stage: Stage | undefined,
  requests: Iterable<BatchRequest> | AsyncIterable<BatchRequest>,
  options: CreateOptions,
): Promise<unknown> {
  options.signal?.throwIfAborted();
  const { controller, unlink } = linkedAbort(options.signal);
  const submission = new Submission(transport, stage, options, controller.signal);
  const parts = cutParts(requests, submission.frame);
  try {
    return await submission.send(parts);
  } catch (error) {
    controller.abort(error);
    throw error;
  } finally {
    unlink();
    // Not awaited: a source that is stuck ends only with its next request.
    parts.return().catch(() => {});
  }
}

type Parts = AsyncGenerator<Part, void, void>;

class Submission {
  readonly #transport: Transport;
  readonly #stage: Stage | undefined;
  readonly #options: CreateOptions;
  readonly #signal: AbortSignal;
  readonly #key: string;
  readonly #sent = { parts: 0, requests: 0, bytes: 0 };

  constructor(transport: Transport, stage: Stage | undefined, options: CreateOptions, signal: AbortSignal) {
    this.#transport = transport;
    this.#stage = stage;
    this.#options = options;
    this.#signal = signal;
    this.#key = options.uploadKey ?? options.idempotencyKey ?? randomUUID();
  }

  /** A batch of one part is created with it; more are uploaded. */
  readonly frame: Frame = ({ number, last }) => {
    if (last && number === 0)
      return frameOf(
        'create',
        this.#createInput({ idempotency_key: this.#options.idempotencyKey ?? this.#key }),
      );
    const { expiresInS } = this.#options;
    return frameOf('upload', {
      upload: this.#key,
      part: number,
      stage: this.#stage,
      expires_in_s: expiresInS,
    });
  };

  async send(parts: Parts): Promise<unknown> {
    const first = await this.#next(parts);
    if (first?.last) return this.#sendPart('create', first);
    const senders = Array.from({ length: PARTS_AT_ONCE }, (_, n) =>
      this.#sendAll(parts, n === 0 ? first : undefined),
    );
    await Promise.all(senders);
    const upload = {
      upload: this.#key,
      parts: this.#sent.parts,
      idempotency_key: this.#options.idempotencyKey,
    };
    return this.#transport.call('create', this.#createInput(upload), { signal: this.#signal });
  }

  /** Takes parts and uploads them until there are no more, so that as many are held as there are senders. */
  async #sendAll(parts: Parts, first: Part | undefined): Promise<void> {
    for (let part = first ?? (await this.#next(parts)); part !== undefined; part = await this.#next(parts)) {
      await this.#sendPart('upload', part);
    }
  }

  async #next(parts: Parts): Promise<Part | undefined> {
    return (await unlessAborted(parts.next(), this.#signal)).value ?? undefined;
  }

  async #sendPart(operation: 'create' | 'upload', part: Part): Promise<unknown> {
    const output = await this.#transport.callPart(operation, part, { signal: this.#signal });
    this.#sent.parts += 1;
    this.#sent.requests += part.requests;
    this.#sent.bytes += part.bytes;
    this.#options.onUpload?.({ ...this.#sent });
    return output;
  }

  #createInput(what: Readonly<Record<string, unknown>>): Readonly<Record<string, unknown>> {
    const { priority, expiresInS, callbackUrl } = this.#options;
    return { stage: this.#stage, ...what, priority, expires_in_s: expiresInS, callback_url: callbackUrl };
  }
}
