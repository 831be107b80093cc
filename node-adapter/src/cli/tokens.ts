// How many tokens a text has, guessed from its characters alone.
//
// Each character counts by its class, with weights fitted to the models' own tokenizers over English and 26 other
// languages, code, Markdown and JSON. English, code and JSON come out within 10 %, most languages of Europe and Asia
// within 25 %; docs/cli.md has the table. Pure.

export const MODELS = ['mistral', 'llama-70b'] as const;
export type Model = (typeof MODELS)[number];

const CLASSES = [
  'letter',
  'space',
  'digit',
  'sign',
  'accented',
  'cyrillic',
  'greekArabic',
  'eastAsian',
  'other',
  'astral',
] as const;
type CharClass = (typeof CLASSES)[number];
type Weights = Readonly<Record<CharClass, number>>;

/** Tokens a character, by its class. `letter`, `space`, `digit` and `sign` are ASCII; `astral` has emoji. */
const WEIGHTS: Readonly<Record<Model, Weights>> = {
  mistral: {
    letter: 0.27,
    space: 0.25,
    digit: 1.15,
    sign: 0.53,
    accented: 2.66,
    cyrillic: 0.52,
    greekArabic: 1.14,
    eastAsian: 1.25,
    other: 1.25,
    astral: 4.5,
  },
  'llama-70b': {
    letter: 0.22,
    space: 0.37,
    digit: 0.79,
    sign: 0.36,
    accented: 0.87,
    cyrillic: 0.38,
    greekArabic: 0.42,
    eastAsian: 0.81,
    other: 0.9,
    astral: 2.5,
  },
};

/** What a chat template puts around a turn, and once around a conversation. */
const TEMPLATE = { turn: 4, conversation: 3 } as const;

// Above ASCII: the last code point of each range, and its class.
const RANGES: readonly (readonly [number, CharClass])[] = [
  [0x00bf, 'other'],
  [0x024f, 'accented'],
  [0x036f, 'other'],
  [0x03ff, 'greekArabic'],
  [0x052f, 'cyrillic'],
  [0x05ff, 'other'],
  [0x06ff, 'greekArabic'],
  [0x1dff, 'other'],
  [0x1eff, 'accented'],
  [0x2fff, 'other'],
  [0x9fff, 'eastAsian'],
  [0xabff, 'other'],
  [0xd7af, 'eastAsian'],
  [0xfeff, 'other'],
  [0xffef, 'eastAsian'],
  [0xffff, 'other'],
  [0x10ffff, 'astral'],
];

function classOf(code: number): CharClass {
  if (code === 0x20) return 'space';
  if (code >= 0x30 && code <= 0x39) return 'digit';
  const upper = code & ~0x20;
  if (upper >= 0x41 && upper <= 0x5a) return 'letter';
  if (code < 0x80) return 'sign';
  return RANGES.find(([last]) => code <= last)?.[1] ?? 'other';
}

// Looked up for every character of a file: a table for the ones below U+10000.
const CLASS_BY_UNIT = Uint8Array.from({ length: 0x10000 }, (_, code) => CLASSES.indexOf(classOf(code)));
const ASTRAL = CLASSES.indexOf('astral');

/** Tokens of a text, not rounded. */
export function tokensOf(text: string, model: Model): number {
  const weights = CLASSES.map((name) => WEIGHTS[model][name]);
  let tokens = 0;
  for (let n = 0; n < text.length; n += 1) {
    const unit = text.charCodeAt(n);
    const isPair = unit >= 0xd800 && unit <= 0xdbff;
    if (isPair) n += 1;
    tokens += weights[(isPair ? ASTRAL : CLASS_BY_UNIT[unit]) ?? 0] ?? 0;
  }
  return tokens;
}

/** Tokens of a request's prompt, its template included. Whatever is not text counts as the JSON that stands for it. */
export function promptTokens(params: Readonly<Record<string, unknown>>, model: Model): number {
  const { system, messages, tools } = params;
  const turns = Array.isArray(messages) ? messages : [];
  const parts = [system, ...turns.map((turn) => turn?.content)];
  const texts = parts.flatMap(textsIn);
  if (tools !== undefined) texts.push(JSON.stringify(tools));
  const said = texts.reduce((sum, text) => sum + tokensOf(text, model), 0);
  return Math.ceil(said + TEMPLATE.conversation + TEMPLATE.turn * parts.length);
}

function textsIn(content: unknown): string[] {
  if (content === undefined || content === null) return [];
  if (typeof content === 'string') return [content];
  if (!Array.isArray(content)) return [JSON.stringify(content)];
  return content.map((block) => (typeof block?.text === 'string' ? block.text : JSON.stringify(block)));
}
