import type { VNode } from 'preact';

const PATHS = {
  stop: 'M5 5h10v10H5z',
  pause: 'M5 4h4v12H5zM11 4h4v12h-4z',
  play: 'M6 4l10 6-10 6z',
  mouse: 'M4 2l12 8-5.5 1L13 16.5l-2.2 1L8.3 12 4 15.5z',
  back: 'M8 4v3h4a5 5 0 010 10H6v-2h6a3 3 0 000-6H8v3L3 8z',
  camera: 'M7 4h6l1.5 2H18v11H2V6h3.5zM10 8a3.5 3.5 0 100 7 3.5 3.5 0 000-7z',
  expand: 'M3 3h6v2H5v4H3zM11 3h6v6h-2V5h-4zM3 11h2v4h4v2H3zM15 11h2v6h-6v-2h4z',
  shrink: 'M7 3h2v6H3V7h4zM11 3h2v4h4v2h-6zM3 11h6v6H7v-4H3zM11 11h6v2h-4v4h-2z',
  send: 'M2 3l16 7-16 7 2-6 8-1-8-1z',
  check: 'M4 10l2-2 3 3 6-6 2 2-8 8z',
  cross: 'M5 3.5L10 8.500 15 3.500 16.500 5 11.500 10 16.500 15 15 16.500 10 11.500 5 16.500 3.500 15 8.500 10 3.500 5z',
  plus: 'M9 3h2v6h6v2h-6v6H9v-6H3V9h6z',
  menu: 'M10 3a1.700 1.700 0 110 3.400A1.700 1.700 0 0110 3zM10 8.300a1.700 1.700 0 110 3.400 1.700 1.700 0 010-3.400zM10 13.600a1.700 1.700 0 110 3.400 1.700 1.700 0 010-3.400z',
  screen: 'M2 3h16v11h-7v2h3v1H6v-1h3v-2H2zM3.500 4.500v8h13v-8z',
  chat: 'M2 3h16v11H9l-4 4v-4H2z',
  columns: 'M2 3h16v14H2zM4 5v10h5V5zM11 5v10h5V5z',
  film: 'M2 3h16v14H2zM4 5v2h2V5zM4 9v2h2V9zM4 13v2h2v-2zM8 5v10h4V5zM14 5v2h2V5zM14 9v2h2V9zM14 13v2h2v-2z',
  person: 'M10 2a4 4 0 110 8 4 4 0 010-8zM3 18c0-4 3-6.500 7-6.500s7 2.500 7 6.500z'
};

export type IconName = keyof typeof PATHS;

/** Decoration only: whatever carries an icon has a name of its own. */
export function Icon({ name }: { name: IconName }): VNode {
  return (
    <svg class="jp-Cambio-icon" viewBox="0 0 20 20" width="16" height="16" aria-hidden="true" focusable="false">
      <path fill="currentColor" fill-rule="evenodd" d={PATHS[name]} />
    </svg>
  );
}
