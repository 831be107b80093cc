// Idempotency keys for creates that come without one. The official SDKs send a failed create again as a new HTTP call,
// told apart by a retry count alone: it must go under the key of the call that failed, or one create makes two batches.

// A retry follows within seconds, a minute where the server asks for it. What nobody came back for is forgotten.
const KEPT_MS = 10 * 60 * 1000;
const MAX_KEPT = 1_000;

interface Kept {
  readonly fingerprint: string;
  readonly key: string;
  readonly untilMs: number;
}

/** Keys of creates that have failed, each to be used by one retry of the same content. */
export class CreateKeys {
  readonly #nowMs: () => number;
  // Oldest first.
  #kept: Kept[] = [];

  constructor(nowMs: () => number) {
    this.#nowMs = nowMs;
  }

  /** Keeps the key of a create that has failed. */
  keep(fingerprint: string, key: string): void {
    this.#kept = this.#fresh().slice(1 - MAX_KEPT);
    this.#kept.push({ fingerprint, key, untilMs: this.#nowMs() + KEPT_MS });
  }

  /** The key of the last failed create of this content that no retry has taken, or undefined. */
  take(fingerprint: string): string | undefined {
    this.#kept = this.#fresh();
    const index = this.#kept.map((kept) => kept.fingerprint).lastIndexOf(fingerprint);
    return index === -1 ? undefined : this.#kept.splice(index, 1)[0]?.key;
  }

  #fresh(): Kept[] {
    return this.#kept.filter(({ untilMs }) => untilMs > this.#nowMs());
  }
}
