// The two environment variables. Importing this warns once if both are missing; an app may run without the service.
import { LlmBatchClient } from './client.js';
import { ConfigurationError } from './errors.js';

const URL_VARIABLE = 'LOCAL_BATCH_URL';
const KEY_VARIABLE = 'RUNPOD_API_KEY';

/** A client as the environment says at this moment. Throws ConfigurationError that names the missing variable. */
export function clientFromEnvironment(): LlmBatchClient {
  return new LlmBatchClient({ baseUrl: required(URL_VARIABLE), apiKey: required(KEY_VARIABLE) });
}

function read(variable: string): string {
  return process.env[variable]?.trim() ?? '';
}

function required(variable: string): string {
  const value = read(variable);
  if (value !== '') return value;
  throw new ConfigurationError(
    `${variable} is not set: the LLM batch service can't be called without it`,
    variable,
  );
}

// The ES module and the CommonJS copy of the package share this mark, so one process warns once.
const WARNED = Symbol.for('llm-batch-adapter.warned');

function warnOnceIfUnset(): void {
  if (read(URL_VARIABLE) !== '' || read(KEY_VARIABLE) !== '' || WARNED in globalThis) return;
  Object.defineProperty(globalThis, WARNED, { value: true });
  console.warn(
    `llm-batch-adapter: neither ${URL_VARIABLE} nor ${KEY_VARIABLE} is set; calls will fail until they are`,
  );
}

warnOnceIfUnset();
