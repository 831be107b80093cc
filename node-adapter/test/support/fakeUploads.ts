// The service's side of an upload: keeps parts by their number and makes one batch of them.
import type { BatchRequest } from '../../src/types.js';
import { completed, type Received, type Reply } from './fakeRunpod.js';
import { BATCH_ID } from './setup.js';

export class FakeUploads {
  /** The parts that arrived, by upload key and number. */
  readonly parts = new Map<string, Map<number, readonly BatchRequest[]>>();
  /** The input of every create. */
  readonly creates: Record<string, unknown>[] = [];
  /** How many upload calls are open, and the most that were at a time. */
  open = 0;
  mostAtOnce = 0;

  /** Answers an upload or a create. An upload waits until `arrived` has resolved. */
  async answer({ input }: Received, arrived: Promise<unknown> = Promise.resolve()): Promise<Reply> {
    if (input['operation'] === 'create') {
      this.creates.push(input);
      return completed({ id: BATCH_ID });
    }
    this.open += 1;
    this.mostAtOnce = Math.max(this.mostAtOnce, this.open);
    await arrived;
    this.open -= 1;
    const [key, number] = [String(input['upload']), Number(input['part'])];
    const requests = input['requests'] as BatchRequest[];
    this.parts.set(key, (this.parts.get(key) ?? new Map()).set(number, requests));
    return completed({ upload: key, part: number, requests: requests.length });
  }

  /** The requests of an upload in the order of its parts. */
  requests(key: string): BatchRequest[] {
    const parts = [...(this.parts.get(key) ?? [])].sort(([a], [b]) => a - b);
    return parts.flatMap(([, requests]) => requests);
  }
}
