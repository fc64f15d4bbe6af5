/** Lines of the conversation that are no messages: approvals, who has control, limits, changes of policy. */

import { policyWords } from './approval';
import { trans } from './language';
import type { Json, StatusMessage } from './messages';
import { text } from './values';

/** The words of a status that belongs into the conversation; empty for all others. */
export function noteOf(message: StatusMessage, viewer = ''): string {
  const data = message.metadata ?? {};
  switch (data['event']) {
    case 'approval_decided':
      return verdictWords(data, viewer);
    case 'question_answered':
      return answerWords(data);
    case 'approval_policy':
      return trans.__('Approval policy: %1', policyWords(data['approval']));
    case 'control':
      return controlWords(text(data['viewer']), viewer);
    case 'human_input':
      return inputWords(data, viewer);
    case 'message_withdrawn':
    case 'limit':
    case 'record_limit_near':
    case 'expiring':
    case 'interrupted':
    case 'restarted':
    case 'request_refused':
      return message.content ?? '';
    default:
      return '';
  }
}

function verdictWords(data: Json, viewer: string): string {
  const [verdict, by] = [text(data['verdict']), text(data['by'])];
  const other = viewer && by && by !== viewer;
  if (other && verdict === 'approved') return trans.__('Approved by another client');
  if (other && verdict === 'denied') return trans.__('Denied by another client');
  switch (verdict) {
    case 'approved':
      return trans.__('Approved');
    case 'denied':
      return trans.__('Denied');
    case 'timeout':
      return trans.__('Denied, because no answer came in time');
    case 'stopped':
      return trans.__('Not answered: the turn was stopped');
    default:
      return verdict;
  }
}

/** An answer in words is an entry of its own. */
function answerWords(data: Json): string {
  const fallback = text(data['answer']);
  switch (data['outcome']) {
    case 'timeout':
      return fallback ? trans.__('No answer came in time; the agent goes on with: %1', fallback) : trans.__('No answer came in time');
    case 'stopped':
      return trans.__('Not answered: the turn was stopped');
    default:
      return fallback ? '' : trans.__('The desktop was handed back');
  }
}

function controlWords(holder: string, viewer: string): string {
  if (!holder) return trans.__('The agent has control again');
  return holder === viewer ? trans.__('You took control') : trans.__('Another viewer took control');
}

function inputWords(data: Json, viewer: string): string {
  const who = data['viewer'] === viewer ? trans.__('You') : trans.__('Another viewer');
  // Mouse and keyboard are steps.
  return data['clipboard_events'] ? trans.__('%1 used the clipboard of the desktop', who) : '';
}
