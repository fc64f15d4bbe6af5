import assert from 'node:assert/strict';
import { test } from 'node:test';
import { cardsOf } from '../shared/cards';
import type { Step } from '../shared/messages';

const step = (number: number, tool: string, image: string | null = null): Step => ({
  id: `t${number}`,
  step: number,
  tool,
  arguments: {},
  status: 'completed',
  human: false,
  browser: false,
  box: null,
  text: '',
  image,
  width: 0,
  height: 0,
  timing: {},
  cost: 0,
  time: 0
});
const shown = (steps: Step[]): string[] => cardsOf(steps).map(card => `${card.step.tool} ${card.shown?.image ?? ''}`);

test('a look at the screen belongs to the action before it', () => {
  const steps = [
    step(1, 'screenshot', 'a'),
    step(2, 'left_click'),
    step(3, 'screenshot', 'b'),
    step(4, 'screenshot', 'c'),
    step(5, 'bash'),
    step(6, 'screenshot', 'd')
  ];
  assert.deepEqual(shown(steps), ['screenshot a', 'left_click b', 'screenshot c', 'bash ', 'screenshot d']);
});

test('a look that failed has a card of its own', () => {
  assert.deepEqual(shown([step(1, 'left_click'), step(2, 'screenshot')]), ['left_click ', 'screenshot ']);
});

test('a look that was denied has a card of its own, though it shows how far the action came', () => {
  const looks: Step[] = [step(1, 'left_click'), { ...step(2, 'screenshot', 'a'), status: 'denied' }];
  assert.deepEqual(shown(looks), ['left_click ', 'screenshot a']);
});
