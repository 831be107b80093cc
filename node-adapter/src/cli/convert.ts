// `llm-batch convert`: a file of requests or results in another of the three formats.
import type { Command, Context } from './context.js';
import { EXIT, InputError, UsageError } from './exit.js';
import { type Policy, STRICT } from './fields.js';
import { FORMATS, type Format, fromOurs, type Shape, shapeOf } from './formats.js';
import { type Fields, parseLines, readBytes } from './lines.js';
import { writeLines } from './output.js';
import { grouped } from './progress.js';
import { converted, inOurs } from './requestFile.js';

export const convert: Command = {
  name: 'convert',
  about: `Converts a file of requests or of results between our format, Anthropic's and OpenAI's. FILE may be - for stdin.
What is absent and has a default is written out, so that a line means the same in both formats. A field without
a counterpart is an error that names the line and the field, unless --lossy lets it be left out.`,
  operands: ['FILE'],
  options: {
    to: { value: 'FORMAT', about: 'ours, anthropic or openai' },
    from: { value: 'FORMAT', about: 'the same; found out by the first line if absent' },
    output: { short: 'o', value: 'FILE', about: 'write there; stdout if absent or -' },
    model: { value: 'NAME', about: 'the model of requests that name none, where the other format needs one' },
    lossy: { about: 'leave out what has no counterpart' },
  },
  run: runConvert,
};

async function runConvert(context: Context): Promise<number> {
  const { flags, terminal, signal } = context;
  const to = flags.oneOf('to', FORMATS);
  if (to === undefined) throw new UsageError('convert needs --to ours, --to anthropic or --to openai');
  const from = flags.oneOf('from', FORMATS);
  const input = flags.operand();
  const path = flags.text('output');
  const name = input === '-' ? 'stdin' : input;
  const bytes = readBytes(input === '-' ? context.stdin : input, signal);
  let lines = 0;
  let lost = 0;
  const policy = policyOf(flags.has('lossy'), flags.text('model'), () => {
    lost += 1;
  });
  let shape: Shape | undefined;
  await writeLines(path, terminal.stdout, async (writer) => {
    for await (const { number, value } of parseLines(name, bytes)) {
      shape ??= shapeFor(name, number, value, from);
      await writer.line(JSON.stringify(inFormat(name, number, value, shape, to, policy)));
      lines += 1;
    }
  });
  const left = lost > 0 ? `; ${grouped(lost)} fields were left out` : '';
  terminal.note(`${grouped(lines)} lines converted${shape ? ` from ${shape.format}` : ''} to ${to}${left}`);
  if (terminal.json && path !== undefined && path !== '-') {
    const answer = { kind: shape?.kind, from: shape?.format, to, lines, left_out: lost, output: path };
    await terminal.answer(answer, '');
  }
  return EXIT.ok;
}

function policyOf(lossy: boolean, model: string | undefined, onLoss: () => void): Policy {
  return { lose: lossy ? onLoss : STRICT.lose, model };
}

function shapeFor(name: string, number: number, line: Fields, from: Format | undefined): Shape {
  const found = shapeOf(line);
  if (found === undefined)
    throw new InputError(name, number, 'this is neither a request nor a result of a batch');
  return from === undefined ? found : { ...found, format: from };
}

function inFormat(
  name: string,
  number: number,
  line: Fields,
  shape: Shape,
  to: Format,
  policy: Policy,
): Fields {
  if (shape.format === to) return line;
  const ours = inOurs(name, number, line, shape, policy);
  return converted(name, number, () => fromOurs(ours, { ...shape, format: to }, policy));
}
