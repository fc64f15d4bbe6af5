/** Lines of the conversation that are no messages: approvals, who has control, limits, changes of policy. */

import { policyWords } from './approval';
import { translate as t } from './language';
import type { Json, StatusMessage } from './messages';
import { text } from './values';

const VERDICTS = new Map([
  ['approved', 'Approved'],
  ['denied', 'Denied'],
  ['timeout', 'Denied, because no answer came in time'],
  ['stopped', 'Not answered: the turn was stopped']
]);

/** The words of a status that belongs into the conversation; empty for all others. */
export function noteOf(message: StatusMessage, viewer = ''): string {
  const data = message.metadata ?? {};
  switch (data['event']) {
    case 'approval_decided':
      return verdictWords(data, viewer);
    case 'question_answered':
      return answerWords(data);
    case 'approval_policy':
      return t('Approval policy: %1', policyWords(data['approval']));
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
  if (other && verdict === 'approved') return t('Approved by another client');
  if (other && verdict === 'denied') return t('Denied by another client');
  return t(VERDICTS.get(verdict) ?? verdict);
}

/** An answer in words is an entry of its own. */
function answerWords(data: Json): string {
  const fallback = text(data['answer']);
  switch (data['outcome']) {
    case 'timeout':
      return fallback ? t('No answer came in time; the agent goes on with: %1', fallback) : t('No answer came in time');
    case 'stopped':
      return t('Not answered: the turn was stopped');
    default:
      return fallback ? '' : t('The desktop was handed back');
  }
}

function controlWords(holder: string, viewer: string): string {
  if (!holder) return t('The agent has control again');
  return holder === viewer ? t('You took control') : t('Another viewer took control');
}

function inputWords(data: Json, viewer: string): string {
  const who = data['viewer'] === viewer ? t('You') : t('Another viewer');
  // Mouse and keyboard are steps.
  return data['clipboard_events'] ? t('%1 used the clipboard of the desktop', who) : '';
}
