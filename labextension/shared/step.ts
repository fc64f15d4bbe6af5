/** One tool call, from the message that began it and the one that ended it. */

import { trans } from './language';
import type { Json, Step, ToolMessage } from './messages';
import { moment, number, text } from './values';

/** How a call ended, when it did not do what it was asked; empty otherwise. */
export function outcome(status: string): string {
  switch (status) {
    case 'failed':
      return trans.__('failed');
    case 'denied':
      return trans.__('denied');
    case 'skipped':
      return trans.__('skipped');
    case 'interrupted':
      return trans.__('interrupted');
    default:
      return '';
  }
}

export function stepOf(id: string, message: ToolMessage, before?: Step): Step {
  const result: Json = { ...message.result };
  const [width, height] = text(result['dimensions']).split('x').map(Number);
  const path = text(result['image_path']);
  return {
    id,
    step: number(message.step) || before?.step || 0,
    tool: text(message.tool) || before?.tool || '',
    arguments: message.arguments ?? before?.arguments ?? {},
    status: message.metadata?.['denied'] === true ? 'denied' : (message.metadata?.['ended'] ?? message.status),
    browser: message.metadata?.['toolset'] === 'browser',
    box: message.result?.box ?? before?.box ?? null,
    human: message.metadata?.['actor'] === 'human',
    text: text(result['text']),
    image: path || (before?.image ?? null),
    width: width || before?.width || 0,
    height: height || before?.height || 0,
    timing: (result['timing'] as Step['timing'] | undefined) ?? before?.timing ?? {},
    cost: number(message.metadata?.['cost_usd']) || (before?.cost ?? 0),
    time: before?.time ?? moment(message.timestamp)
  };
}
