// How far a batch is, as text: a bar on a terminal, a plain line elsewhere. Pure.
import type { BatchStatus } from '../types.js';

const BAR_MIN = 10;
const BAR_MAX = 40;

/** A number with thousands separators. */
export function grouped(value: number): string {
  return Math.round(value).toLocaleString('en-US');
}

/** Seconds as `0:42`, `12:05` or `3:07:09`. */
export function clockText(seconds: number): string {
  const whole = Math.max(0, Math.round(seconds));
  const parts = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60, whole % 60];
  const shown = parts[0] === 0 ? parts.slice(1) : parts;
  return shown.map((part, n) => (n === 0 ? String(part) : String(part).padStart(2, '0'))).join(':');
}

/** How many requests of a batch are finished, and how many of them have no answer. */
export function tally({ counts }: BatchStatus): { done: number; failed: number; total: number } {
  const done = counts.total - counts.pending;
  return { done, failed: done - counts.succeeded, total: counts.total };
}

/** Where a watch began: the rate is that of what finished since. */
export interface Start {
  readonly atMs: number;
  readonly done: number;
}

/** One line with a bar, at most `columns` wide. */
export function progressBar(status: BatchStatus, start: Start, nowMs: number, columns: number): string {
  const { done, failed, total } = tally(status);
  const share = total === 0 ? 1 : done / total;
  const perSecond = ((done - start.done) * 1000) / Math.max(1, nowMs - start.atMs);
  const facts = [
    `${Math.floor(share * 100)}%`.padStart(4),
    `${grouped(done)}/${grouped(total)}`,
    ...(failed > 0 ? [`${grouped(failed)} failed`] : []),
    ...(perSecond > 0 ? [`${perSecond.toFixed(1)}/s`] : [status.processing_status]),
    ...(perSecond > 0 && done < total ? [`ETA ${clockText((total - done) / perSecond)}`] : []),
  ].join('  ');
  const width = Math.min(BAR_MAX, columns - facts.length - 5);
  return width < BAR_MIN ? facts.trimStart().slice(0, columns - 1) : `[${bar(share, width)}] ${facts}`;
}

function bar(share: number, width: number): string {
  const filled = Math.floor(share * width);
  return '#'.repeat(filled) + '-'.repeat(width - filled);
}

/** One plain line, for a pipe or a log. */
export function progressLine(status: BatchStatus): string {
  const { done, failed, total } = tally(status);
  const failures = failed > 0 ? `, ${grouped(failed)} failed` : '';
  return `${status.id} ${status.processing_status}: ${grouped(done)} of ${grouped(total)} done${failures}`;
}
