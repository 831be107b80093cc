// A clock that never waits: each sleep is noted and moves the time on.
import type { Clock } from '../../src/clock.js';

export class FakeClock implements Clock {
  /** Every sleep asked for, in milliseconds. */
  readonly sleeps: number[] = [];
  nowMs = Date.UTC(2026, 7, 1);
  /** What `random` gives. */
  chance = 0.5;
  /** Called before a sleep ends: lets a test do something in the middle of a wait. */
  onSleep: (n: number) => void = () => undefined;

  now(): number {
    return this.nowMs;
  }

  random(): number {
    return this.chance;
  }

  async sleep(ms: number, signal?: AbortSignal): Promise<void> {
    this.sleeps.push(ms);
    this.onSleep(this.sleeps.length);
    signal?.throwIfAborted();
    this.nowMs += ms;
  }
}
