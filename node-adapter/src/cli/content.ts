// The content of messages in our own form, which is Anthropic's: text, and the blocks of tools.
import { ConversionError, Reader } from './fields.js';

export interface TextPart {
  readonly type: 'text';
  readonly text: string;
}

export interface ToolUse {
  readonly type: 'tool_use';
  readonly id: string;
  readonly name: string;
  readonly input: unknown;
}

export interface ToolResult {
  readonly type: 'tool_result';
  readonly toolUseId: string;
  readonly text: string;
  readonly isError: boolean;
}

export type Block = TextPart | ToolUse | ToolResult;

/** One turn, its content as blocks. */
export interface Turn {
  readonly role: 'user' | 'assistant';
  readonly blocks: readonly Block[];
}

/** The conversation, checked. Throws ConversionError for what no text model reads. */
export function turnsOf(params: Reader): Turn[] {
  const messages = params.needed('messages', params.list('messages'));
  if (messages.length === 0) throw new ConversionError(params.at('messages'), 'must not be empty');
  return messages.map((message, n) => turnOf(new Reader(message, `${params.at('messages')}[${n}]`)));
}

function turnOf(message: Reader): Turn {
  const role = message.text('role');
  if (role !== 'user' && role !== 'assistant') {
    throw new ConversionError(message.at('role'), 'must be "user" or "assistant"');
  }
  return { role, blocks: blocksOf(message.any('content'), message.at('content')) };
}

/** Text, or a list of blocks, as blocks. */
export function blocksOf(content: unknown, path: string): Block[] {
  if (typeof content === 'string') return [{ type: 'text', text: content }];
  if (!Array.isArray(content)) throw new ConversionError(path, 'must be text or a list of blocks');
  return content.map((block, n) => blockOf(new Reader(block, `${path}[${n}]`)));
}

function blockOf(block: Reader): Block {
  const type = block.text('type');
  if (type === 'text') return { type, text: block.needed('text', block.text('text')) };
  if (type === 'tool_use') {
    const id = block.needed('id', block.text('id'));
    const name = block.needed('name', block.text('name'));
    return { type, id, name, input: block.any('input') ?? {} };
  }
  if (type === 'tool_result') {
    const toolUseId = block.needed('tool_use_id', block.text('tool_use_id'));
    const text = textOf(block.any('content') ?? '', block.at('content'));
    return { type, toolUseId, text, isError: block.boolean('is_error') ?? false };
  }
  throw new ConversionError(
    block.path,
    `${type ?? 'untyped'} blocks are not supported; the model reads text only`,
  );
}

/** The text of text, or of a list of text blocks. */
export function textOf(content: unknown, path: string): string {
  return blocksOf(content, path)
    .map((block, n) => {
      if (block.type === 'text') return block.text;
      throw new ConversionError(`${path}[${n}]`, `a ${block.type} block can't stand here`);
    })
    .join('');
}
