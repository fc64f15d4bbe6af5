/** The form of a new session, and the list to choose one from. */

import { Dialog, InputDialog, showDialog } from '@jupyterlab/apputils';
import type { TranslationBundle } from '@jupyterlab/translation';
import { Widget } from '@lumino/widgets';
import type { Json } from '../shared/messages';
import type { Roster, Row } from '../shared/roster';
import { askToTell } from '../shared/tell';

export interface Defaults {
  model: string;
  approval: string;
  maxSteps: number;
  maxCostUsd: number;
}

/** What the server offers. */
export interface Choices {
  models: string[];
  /** The server's own setting. */
  approval: string;
  maxSteps: number;
  maxCostUsd: number;
}

export interface NewSession {
  name: string;
  config: Json;
}

class Form extends Widget implements Dialog.IBodyWidget<NewSession> {
  private readonly fields = new Map<string, HTMLInputElement | HTMLSelectElement>();

  constructor(
    private readonly trans: TranslationBundle,
    defaults: Defaults,
    choices: Choices
  ) {
    super();
    this.addClass('jp-Cambio-form');
    const models = [...new Set([defaults.model, ...choices.models].filter(Boolean))];
    this.field('name', trans.__('Name'), this.input('text', '', trans.__('Made up when empty')));
    this.field('model', trans.__('Model'), this.select(models, models[0] ?? ''));
    this.field('approval', trans.__('Ask before'), this.choices(trans, defaults.approval || choices.approval));
    this.field(
      'ask_user',
      trans.__('May ask you'),
      this.options(
        [
          ['', trans.__('no')],
          ['yes', trans.__('questions, and to take over')]
        ],
        ''
      )
    );
    this.field(
      'max_steps',
      trans.__('Step limit of a turn'),
      this.input('number', defaults.maxSteps || '', String(choices.maxSteps || ''), true)
    );
    this.field(
      'max_cost_usd',
      trans.__('Cost limit (US$)'),
      this.input('number', defaults.maxCostUsd || '', String(choices.maxCostUsd || ''))
    );
  }

  getValue(): NewSession {
    const text = (name: string): string => this.fields.get(name)?.value.trim() ?? '';
    const config: Json = {};
    for (const name of ['model', 'approval']) if (text(name)) config[name] = text(name);
    for (const name of ['max_steps', 'max_cost_usd']) if (Number(text(name)) > 0) config[name] = Number(text(name));
    if (text('ask_user')) config['ask_user'] = true;
    return { name: text('name'), config };
  }

  private field(name: string, words: string, field: HTMLInputElement | HTMLSelectElement): void {
    const label = document.createElement('label');
    const span = document.createElement('span');
    span.textContent = words;
    const hint = document.createElement('small'); // shown while the field is not valid, which is why Create rests
    hint.textContent = field.dataset['hint'] ?? '';
    label.append(span, field, hint);
    this.fields.set(name, field);
    this.node.append(label);
  }

  private input(type: string, value: string | number, hint = '', whole = false): HTMLInputElement {
    const input = document.createElement('input');
    input.type = type;
    input.value = String(value);
    input.placeholder = hint;
    input.className = 'jp-mod-styled';
    if (type === 'number') {
      input.min = '0';
      input.step = whole ? '1' : 'any';
      input.dataset['hint'] = whole ? this.trans.__('A whole number, 0 or more') : this.trans.__('A number, 0 or more');
    }
    return input;
  }

  private select(values: string[], chosen: string): HTMLSelectElement {
    return this.options(
      values.map(value => [value, value]),
      chosen
    );
  }

  private choices(trans: TranslationBundle, chosen: string): HTMLSelectElement {
    const words: [string, string][] = [
      ['never', trans.__('nothing')],
      ['risky', trans.__('risky actions')],
      ['always', trans.__('every action')]
    ];
    return this.options(words, chosen);
  }

  private options(pairs: [string, string][], chosen: string): HTMLSelectElement {
    const select = document.createElement('select');
    select.className = 'jp-mod-styled';
    for (const [value, words] of pairs) select.add(new Option(words, value, false, value === chosen));
    return select;
  }
}

/** What the person asked for, or null when they cancelled. */
export async function askForNew(trans: TranslationBundle, defaults: Defaults, choices: Choices): Promise<NewSession | null> {
  const answer = await showDialog({
    title: trans.__('New agent desktop'),
    body: new Form(trans, defaults, choices),
    buttons: [Dialog.cancelButton(), Dialog.okButton({ label: trans.__('Create') })],
    focusNodeSelector: 'input'
  });
  if (answer.button.accept && answer.value?.config['ask_user']) askToTell();
  return answer.button.accept ? answer.value : null;
}

/** The session that the person chose, or null. */
export async function choose(trans: TranslationBundle, roster: Roster): Promise<Row | null> {
  const rows = [...roster.rows.values()].sort((a, b) => Number(a.ended) - Number(b.ended) || b.created.localeCompare(a.created));
  const labels = rows.map(row => `${row.name} – ${row.ended ? trans.__('ended') : row.status} (${row.id.slice(0, 8)})`);
  if (!labels.length) {
    await showDialog({ title: trans.__('No agent sessions yet'), buttons: [Dialog.okButton()] });
    return null;
  }
  const answer = await InputDialog.getItem({ title: trans.__('Open agent session'), items: labels, okLabel: trans.__('Open') });
  return answer.button.accept && answer.value !== null ? (rows[labels.indexOf(answer.value)] ?? null) : null;
}
