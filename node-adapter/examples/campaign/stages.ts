// The campaign's four stages: what each asks about a lead. Every one after the first quotes what was written before.
import type { Lead } from '../demo/leads.js';

export const STAGES = ['sales_intel', 'subject', 'email', 'polish'] as const;

export type CampaignStage = (typeof STAGES)[number];

/** What a stage sends for one lead. */
export interface Prompt {
  readonly system: string;
  readonly user: string;
  readonly maxTokens: number;
}

/** The texts written so far for one lead. */
export type Drafts = Partial<Record<CampaignStage, string>>;

export function customIdOf(leadId: string, stage: CampaignStage): string {
  return `lead_${leadId}_${stage}`;
}

/** The lead and the stage of a custom_id. Throws an Error for one that this campaign did not make. */
export function parseCustomId(customId: string): { leadId: string; stage: CampaignStage } {
  const stage = STAGES.find((name) => customId.endsWith(`_${name}`));
  if (stage === undefined || !customId.startsWith('lead_'))
    throw new Error(`not of this campaign: ${customId}`);
  return { leadId: customId.slice('lead_'.length, -`_${stage}`.length), stage };
}

export function promptOf(stage: CampaignStage, lead: Lead, drafts: Drafts): Prompt {
  const reader = `${lead.firstName} ${lead.lastName}, ${lead.title} at ${lead.company} (${lead.industry})`;
  switch (stage) {
    case 'sales_intel':
      return {
        system: 'You are a B2B sales researcher. Use only the facts given. Answer in three short paragraphs.',
        user: `${reader}\nNews: ${lead.triggerEvent}\nPains: ${lead.painPoints.join('; ')}\nInterest: ${lead.productInterest}`,
        maxTokens: 320,
      };
    case 'subject':
      return {
        system:
          'You write subject lines of at most 8 words for first e-mails. Answer with one line, no quotes.',
        user: `${reader}\n\n${drafts.sales_intel}`,
        maxTokens: 32,
      };
    case 'email':
      return {
        system:
          'You write first e-mails of at most 120 words: one concrete idea, one easy question at the end.',
        user: `${reader}\n\n${drafts.sales_intel}\n\nSubject: ${drafts.subject}`,
        maxTokens: 256,
      };
    case 'polish':
      return {
        system: 'You are an editor. Keep every fact, remove filler. Answer with the e-mail only.',
        user: `Reader: ${reader}\nSubject: ${drafts.subject}\n\n${drafts.email}`,
        maxTokens: 256,
      };
  }
}
