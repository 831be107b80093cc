// The messages of OpenAI's chat as a system text and turns of ours, and back.
import { type Block, type ToolResult, type Turn, textOf } from './content.js';
import { ConversionError, compact, isObject, type Policy, Reader } from './fields.js';
import type { Fields } from './lines.js';

interface OurMessage {
  readonly role: 'user' | 'assistant';
  readonly content: string | readonly Fields[];
}

/** `{system, messages}` of a chat. System messages must come first; the answers of tools become a turn of the user. */
export function fromChat(body: Reader, policy: Policy): Fields {
  const chat = body.needed('messages', body.list('messages'));
  const system: string[] = [];
  const messages: OurMessage[] = [];
  for (const [n, value] of chat.entries()) {
    const message = new Reader(value, `${body.path}.messages[${n}]`);
    const role = message.text('role') ?? '';
    if (role === 'system' || role === 'developer') {
      if (messages.length > 0)
        throw new ConversionError(message.at('role'), `a ${role} message must come first`);
      system.push(partsText(message));
    } else {
      push(messages, role === 'tool' ? toolMessage(message) : spoken(message, role));
    }
    message.loseRest(policy, 'our format');
  }
  if (messages.length === 0)
    throw new ConversionError(body.at('messages'), 'must hold a message of the user');
  return { system: system.length === 0 ? undefined : system.join('\n\n'), messages };
}

// The answers to calls made at once stand in one turn.
function push(messages: OurMessage[], next: OurMessage): void {
  const last = messages.at(-1);
  if (isAnswer(next) && last !== undefined && isAnswer(last)) {
    messages[messages.length - 1] = { role: 'user', content: [...last.content, ...next.content] };
  } else {
    messages.push(next);
  }
}

function isAnswer(message: OurMessage): message is OurMessage & { content: readonly Fields[] } {
  return Array.isArray(message.content) && message.content.every(({ type }) => type === 'tool_result');
}

function partsText(message: Reader): string {
  return textOf(message.needed('content', message.any('content')), message.at('content'));
}

function toolMessage(message: Reader): OurMessage {
  const tool_use_id = message.needed('tool_call_id', message.text('tool_call_id'));
  return { role: 'user', content: [{ type: 'tool_result', tool_use_id, content: partsText(message) }] };
}

function spoken(message: Reader, role: string): OurMessage {
  if (role !== 'user' && role !== 'assistant') {
    throw new ConversionError(message.at('role'), 'must be system, developer, user, assistant or tool');
  }
  const calls = role === 'assistant' ? (message.list('tool_calls') ?? []) : [];
  if (calls.length === 0) return { role, content: partsText(message) };
  const text = message.any('content') === undefined ? '' : partsText(message);
  const uses = calls.map((call, n) => toolUse(new Reader(call, `${message.at('tool_calls')}[${n}]`)));
  return { role, content: [...(text === '' ? [] : [{ type: 'text', text }]), ...uses] };
}

function toolUse(call: Reader): Fields {
  const called = call.needed('function', call.object('function'));
  const id = call.needed('id', call.text('id'));
  const name = called.needed('name', called.text('name'));
  return { type: 'tool_use', id, name, input: argumentsOf(called) };
}

/** The arguments of a call, which OpenAI sends as JSON in a text. */
export function argumentsOf(called: Reader): unknown {
  const text = called.text('arguments') ?? '';
  try {
    const value: unknown = JSON.parse(text === '' ? '{}' : text);
    if (isObject(value)) return value;
  } catch {
    // Said below, without the text.
  }
  throw new ConversionError(called.at('arguments'), 'must be a JSON object as text');
}

/** A chat of a system text and turns. */
export function toChat(system: unknown, path: string, turns: readonly Turn[], policy: Policy): Fields[] {
  const head = system === undefined ? [] : [{ role: 'system', content: textOf(system, path) }];
  return [
    ...head,
    ...turns.flatMap((turn, n) => (turn.role === 'user' ? userChat(turn, n, policy) : [assistantChat(turn)])),
  ];
}

function userChat(turn: Turn, index: number, policy: Policy): Fields[] {
  const answers = turn.blocks.filter((block): block is ToolResult => block.type === 'tool_result');
  if (answers.some((answer) => answer.isError)) {
    policy.lose(`params.messages[${index}].content`, "is_error has no place in OpenAI's format");
  }
  const said = joined(turn.blocks);
  return [
    ...answers.map(({ toolUseId, text }) => ({ role: 'tool', tool_call_id: toolUseId, content: text })),
    ...(said === '' && answers.length > 0 ? [] : [{ role: 'user', content: said }]),
  ];
}

function assistantChat(turn: Turn): Fields {
  const calls = callsOf(turn.blocks);
  const said = joined(turn.blocks);
  if (calls.length === 0) return { role: 'assistant', content: said };
  return { role: 'assistant', content: said === '' ? null : said, tool_calls: calls };
}

/** The tool calls among blocks, in OpenAI's form. */
export function callsOf(blocks: readonly Block[]): Fields[] {
  return blocks.flatMap((block) =>
    block.type === 'tool_use'
      ? [
          compact({
            id: block.id,
            type: 'function',
            function: { name: block.name, arguments: JSON.stringify(block.input) },
          }),
        ]
      : [],
  );
}

/** The text among blocks. */
export function joined(blocks: readonly Block[]): string {
  return blocks.map((block) => (block.type === 'text' ? block.text : '')).join('');
}
