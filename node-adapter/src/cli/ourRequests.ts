// What the ways from our requests to the other formats share.
import { ConversionError, type Policy, type Reader } from './fields.js';

/** What the service takes where a request of ours says nothing. */
export const OUR_DEFAULTS = { max_tokens: 2048, temperature: 0.2 } as const;
/** What Anthropic and OpenAI take. */
export const THEIR_TEMPERATURE = 1;

/** The model that a request of ours asks for, as far as it says. */
export function modelOf(params: Reader, notes: Reader | undefined, policy: Policy, format: string): string {
  const hint = notes?.text('model_hint');
  const model = params.text('model') ?? hint ?? policy.model;
  if (model !== undefined) return model;
  throw new ConversionError(
    params.at('model'),
    `${format} needs one, and the request names none (see --model)`,
  );
}

/** `stop_sequences` and `stop`, which mean the same in our format. */
export function stopsOf(params: Reader): readonly unknown[] | undefined {
  const stop = params.any('stop');
  const stops = [...(params.list('stop_sequences') ?? []), ...(Array.isArray(stop) ? stop : [stop])].filter(
    (text) => text !== undefined,
  );
  return stops.length === 0 ? undefined : stops;
}

/** Takes what only our format has and whose usual values say nothing. */
export function dropOurs(params: Reader, policy: Policy, format: string): void {
  if (params.text('on_invalid') === 'retry')
    policy.lose(params.at('on_invalid'), `has no place in ${format}`);
  params.any('n');
  params.any('stream');
  params.loseRest(policy, format);
}
