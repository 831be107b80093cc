// The commands that ask the service about itself: health and metrics.
import type { HealthReport, Metrics } from '../types.js';
import { isObject } from '../wire.js';
import type { Command } from './context.js';
import { EXIT } from './exit.js';
import { columns, SERVICE_OPTIONS } from './flags.js';

export const health: Command = {
  name: 'health',
  about: 'Says whether the service can do its work. Exit code 3 if it can not.',
  operands: [],
  options: SERVICE_OPTIONS,
  run: async ({ client, signal, terminal }) => {
    const report = await client().checkHealth({ signal });
    const verdict = report.ready ? terminal.colour('green', 'ready') : terminal.colour('red', 'not ready');
    await terminal.answer(report, `${verdict}\n${columns(healthRows(report))}`);
    return report.ready ? EXIT.ok : EXIT.service;
  },
};

function healthRows({ ready: _, endpoints = {}, ...parts }: HealthReport): string[][] {
  const models = Object.entries(endpoints).map(([name, endpoint]) => {
    const breaker = endpoint.breaker?.state ?? 'closed';
    const faults = [endpoint.error, breaker === 'closed' ? undefined : `breaker ${breaker}`].filter(Boolean);
    return [name, `${endpoint.ok ? 'ok' : 'not ok'}${faults.length > 0 ? ` (${faults.join(', ')})` : ''}`];
  });
  return [...models, ...flattened(parts)];
}

export const metrics: Command = {
  name: 'metrics',
  about: "Prints the service's figures: queue depth, latencies, successes and errors by model, and more.",
  operands: [],
  options: SERVICE_OPTIONS,
  run: async ({ client, signal, terminal }) => {
    const figures = await client().getMetrics({ signal });
    await terminal.answer(figures, columns(metricRows(figures)));
    return EXIT.ok;
  },
};

// The service says its figures twice: as a list, and as a text for Prometheus.
function metricRows({ metrics, prometheus: _, ...others }: Metrics): string[][] {
  const listed: readonly unknown[] = Array.isArray(metrics) ? metrics : [];
  return [...listed.filter(isObject).map(metricRow), ...flattened(others)];
}

function metricRow({ name, labels, value }: Readonly<Record<string, unknown>>): string[] {
  const pairs = Object.entries(isObject(labels) ? labels : {}).map(
    ([label, text]) => `${label}=${JSON.stringify(text)}`,
  );
  return [pairs.length === 0 ? String(name) : `${name}{${pairs.join(',')}}`, String(value)];
}

/** A row a figure, named by its path. */
function flattened(value: unknown, path = ''): string[][] {
  if (!isObject(value)) return [[path, typeof value === 'string' ? value : JSON.stringify(value)]];
  return Object.entries(value).flatMap(([name, inner]) =>
    flattened(inner, path === '' ? name : `${path}.${name}`),
  );
}
