// Submitting a batch of any size: in one call where it fits into one, else in parts and then by reference to them.
//
// A part is resent by itself, under the upload's key and its own number, and any number of times: the service keeps it
// once. Nothing of a batch runs before the create at the end, and an upload without one expires by itself.
import { randomUUID } from 'node:crypto';
import { cutParts, type Part } from './parts.js';
import { linkedAbort, unlessAborted } from './signals.js';
import type { Transport } from './transport.js';
import type { BatchRequest, CreateOptions, Stage } from './types.js';

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
  const parts = cutParts(requests);
  const { controller, unlink } = linkedAbort(options.signal);
  try {
    return await new Submission({ transport, stage, options, parts, signal: controller.signal }).run();
  } catch (error) {
    controller.abort(error);
    throw error;
  } finally {
    unlink();
    // Not awaited: a source that is stuck ends only with its next request.
    parts.return().catch(() => {});
  }
}

interface Parcel {
  readonly transport: Transport;
  readonly stage: Stage | undefined;
  readonly options: CreateOptions;
  readonly parts: AsyncGenerator<Part, void, void>;
  readonly signal: AbortSignal;
}

class Submission {
  readonly #parcel: Parcel;
  readonly #key: string;
  readonly #sent = { parts: 0, requests: 0, bytes: 0 };

  constructor(parcel: Parcel) {
    this.#parcel = parcel;
    this.#key = parcel.options.uploadKey ?? parcel.options.idempotencyKey ?? randomUUID();
  }

  async run(): Promise<unknown> {
    const { idempotencyKey } = this.#parcel.options;
    const first = await this.#next();
    if (first?.last) {
      const output = await this.#create({ idempotency_key: idempotencyKey ?? this.#key }, first);
      this.#note(first);
      return output;
    }
    const senders = Array.from({ length: PARTS_AT_ONCE }, (_, n) =>
      this.#sendParts(n === 0 ? first : undefined),
    );
    await Promise.all(senders);
    const upload = {
      upload: this.#key,
      parts: this.#sent.parts,
      idempotency_key: idempotencyKey,
    };
    return this.#create(upload);
  }

  /** Takes parts and sends them until there are no more, so that as many are held as there are senders. */
  async #sendParts(first: Part | undefined): Promise<void> {
    const { transport, stage, options, signal } = this.#parcel;
    const common = { upload: this.#key, stage, expires_in_s: options.expiresInS };
    for (let part = first ?? (await this.#next()); part !== undefined; part = await this.#next()) {
      await transport.call('upload', { ...common, part: part.number }, { part, signal });
      this.#note(part);
    }
  }

  #create(what: Readonly<Record<string, unknown>>, part?: Part): Promise<unknown> {
    const { transport, stage, options, signal } = this.#parcel;
    const { priority, expiresInS, callbackUrl } = options;
    const input = { stage, ...what, priority, expires_in_s: expiresInS, callback_url: callbackUrl };
    return transport.call('create', input, { part, signal });
  }

  async #next(): Promise<Part | undefined> {
    const { parts, signal } = this.#parcel;
    return (await unlessAborted(parts.next(), signal)).value ?? undefined;
  }

  #note(part: Part): void {
    this.#sent.parts += 1;
    this.#sent.requests += part.requests;
    this.#sent.bytes += part.json.length;
    this.#parcel.options.onUpload?.({ ...this.#sent });
  }
}
