/** Steps as cards: what was done, and the screenshot after it, which an agent often takes in a step of its own. */

import { isLook, onScreen, screenshotIndex } from './actions';
import type { Step } from './messages';

export interface StepCard {
  step: Step;
  /** The step whose screenshot the card shows: of after the action, else its own, else of before it. */
  shown: Step | undefined;
}

/** One card for each step; a look at the screen right after an action belongs to that action's card. */
export function cardsOf(steps: readonly Step[]): StepCard[] {
  const cards: StepCard[] = [];
  for (const [index, step] of steps.entries()) {
    const last = cards.at(-1);
    if (last && belongsTo(last.step, steps[index - 1], step)) last.shown = step;
    else cards.push({ step, shown: steps[screenshotIndex(steps, index, one => one.image !== null)] });
  }
  return cards;
}

function belongsTo(action: Step, before: Step | undefined, look: Step): boolean {
  return (
    before === action &&
    look.image !== null &&
    look.status === 'completed' &&
    isLook(look.tool, look.arguments) &&
    !isLook(action.tool, action.arguments) &&
    onScreen(action.tool, action.arguments)
  );
}

/** Ids of the steps that have a card of their own. */
export function ownCards(steps: readonly Step[]): ReadonlySet<string> {
  return new Set(cardsOf(steps).map(card => card.step.id));
}
