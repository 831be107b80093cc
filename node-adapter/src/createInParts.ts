// A create too large for one call: its requests go up in parts, then the batch is created by reference to them.
import { createHash } from 'node:crypto';
import { errorAnswer, type HttpAnswer, type HttpOperation, type HttpRequest } from './httpOperation.js';
import { PART_MAX_BYTES } from './parts.js';
import { byReference, findRequests, MalformedJson, type Part, partsOf } from './requestParts.js';

const PARTS_AT_ONCE = 3;

/** A create with its JSON text. */
export type Create = HttpRequest & { readonly body: string };

/**
 * The answer to the create, or the first refusal of a part. Parts are named after the idempotency key, so what is
 * sent again changes nothing.
 */
export async function createInParts(
  operation: HttpOperation,
  create: Create,
  idempotencyKey: string,
  signal: AbortSignal | undefined,
): Promise<HttpAnswer> {
  try {
    return await new Upload(operation, create, idempotencyKey, signal).run();
  } catch (error) {
    if (!(error instanceof MalformedJson)) throw error;
    return errorAnswer(400, 'invalid_request_error', `The body is not JSON: ${error.message}`);
  }
}

class Upload {
  readonly #operation: HttpOperation;
  readonly #create: Create;
  readonly #signal: AbortSignal | undefined;
  readonly #key: string;
  #count = 0;
  #stopped = false;

  constructor(operation: HttpOperation, create: Create, key: string, signal: AbortSignal | undefined) {
    this.#operation = operation;
    this.#create = create;
    this.#signal = signal;
    // Any text may be an idempotency key; this stands in a path.
    this.#key = createHash('sha256').update(key).digest('hex');
  }

  async run(): Promise<HttpAnswer> {
    const { body } = this.#create;
    const place = findRequests(body);
    if (place === undefined) return this.#operation.call(this.#create, this.#signal);
    let arrayEnd = 0;
    const parts = (function* () {
      arrayEnd = yield* partsOf(body, place, PART_MAX_BYTES);
    })();
    const refusals = await Promise.all(Array.from({ length: PARTS_AT_ONCE }, () => this.#send(parts)));
    const refusal = refusals.find((answer) => answer !== undefined);
    if (refusal !== undefined) return refusal;
    const reference = { key: this.#key, parts: this.#count };
    return this.#operation.call(
      { ...this.#create, body: byReference(body, place, arrayEnd, reference) },
      this.#signal,
    );
  }

  /** Sends parts until there are none or somebody met a fault. Gives a refusal of the service. */
  async #send(parts: Iterator<Part>): Promise<HttpAnswer | undefined> {
    try {
      for (let next = parts.next(); !next.done && !this.#stopped; next = parts.next()) {
        const answer = await this.#sendPart(next.value);
        if (answer.status >= 300) {
          this.#stopped = true;
          return renumbered(answer, next.value.firstRequest);
        }
      }
      return undefined;
    } catch (error) {
      this.#stopped = true;
      throw error;
    }
  }

  #sendPart({ body }: Part): Promise<HttpAnswer> {
    const path = `${this.#create.path}/uploads/${this.#key}/${this.#count}`;
    this.#count += 1;
    return this.#operation.callPatiently({ ...this.#create, method: 'PUT', path, body }, this.#signal);
  }
}

/** The refusal with its requests numbered as in the whole batch. */
function renumbered(answer: HttpAnswer, firstRequest: number): HttpAnswer {
  const body = answer.body.replace(
    /\brequests\[(\d+)\]/g,
    (_, index: string) => `requests[${firstRequest + Number(index)}]`,
  );
  return { ...answer, body };
}
