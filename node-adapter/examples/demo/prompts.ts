// What each stage asks. Every stage after the first quotes what the stages before it wrote for the same lead.
import type { BatchRequest } from 'llm-batch-adapter';
import type { Lead } from './leads.js';

export const STAGES = ['sales_intel', 'subject', 'email', 'polish'] as const;

export type DemoStage = (typeof STAGES)[number];

/** The texts so far, by custom_id. */
export type Drafts = Map<string, string>;

/** The custom_id of a lead's request in a stage. */
export function customIdOf(lead: Lead, stage: DemoStage): string {
  return `lead_${lead.leadId}_${stage}`;
}

/** One request per lead. */
export function promptsOf(stage: DemoStage, leads: readonly Lead[], drafts: Drafts): BatchRequest[] {
  const { system, maxTokens, temperature, ask } = PROMPTS[stage];
  return leads.map((lead) => {
    const draftOf = (earlier: DemoStage) => {
      const text = drafts.get(customIdOf(lead, earlier));
      if (text === undefined) throw new Error(`${stage} of lead ${lead.leadId} needs the text of ${earlier}`);
      return text;
    };
    return {
      custom_id: customIdOf(lead, stage),
      params: {
        system,
        messages: [{ role: 'user', content: ask(lead, draftOf) }],
        max_tokens: maxTokens,
        temperature,
      },
      metadata: { leadId: lead.leadId, accountId: lead.accountId },
    };
  });
}

interface Prompt {
  readonly system: string;
  readonly maxTokens: number;
  readonly temperature: number;
  readonly ask: (lead: Lead, draftOf: (stage: DemoStage) => string) => string;
}

const PROMPTS: Readonly<Record<DemoStage, Prompt>> = {
  sales_intel: {
    system:
      'You are a B2B sales researcher. Use only the facts given. Answer in three short paragraphs: situation, likely priority, best angle.',
    maxTokens: 320,
    temperature: 0.2,
    ask: (lead) => `${profileOf(lead)}\n\nWrite the sales intelligence for this lead.`,
  },
  subject: {
    system:
      'You write subject lines for first e-mails to business leads. Answer with one line of at most 8 words, no quotes.',
    maxTokens: 32,
    temperature: 0.7,
    ask: (lead, draftOf) =>
      `${headOf(lead)}\n\nSales intelligence:\n${draftOf('sales_intel')}\n\nWrite the subject line.`,
  },
  email: {
    system:
      'You write first e-mails to business leads: at most 120 words, one concrete idea, one easy question at the end.',
    maxTokens: 256,
    temperature: 0.5,
    ask: (lead, draftOf) =>
      `${headOf(lead)}\n\nSales intelligence:\n${draftOf('sales_intel')}\n\nSubject: ${draftOf('subject')}\n\nWrite the e-mail to ${lead.firstName}.`,
  },
  polish: {
    system:
      'You are an editor. Keep every fact and the length, remove cliches and filler, make it sound like a person. Answer with the e-mail only.',
    maxTokens: 256,
    temperature: 0.3,
    ask: (lead, draftOf) =>
      `Reader: ${headOf(lead)}\nSubject: ${draftOf('subject')}\n\nDraft:\n${draftOf('email')}\n\nPolish the draft.`,
  },
};

function headOf(lead: Lead): string {
  return `${lead.firstName} ${lead.lastName}, ${lead.title} at ${lead.company} (${lead.industry}, ${lead.city})`;
}

function profileOf(lead: Lead): string {
  return [
    headOf(lead),
    `Employees: ${lead.employees}. Country: ${lead.country}. Website: ${lead.website}`,
    `What just happened: ${lead.triggerEvent}`,
    `Known pains: ${lead.painPoints.join('; ')}`,
    `Interest: ${lead.productInterest}`,
  ].join('\n');
}
