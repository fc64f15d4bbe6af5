import jsxA11y from 'eslint-plugin-jsx-a11y';
import reactHooks from 'eslint-plugin-react-hooks';
import tseslint from 'typescript-eslint';

const NO_HTML = 'Text from the agent must never be parsed as HTML: make elements.';
const LITERAL = 'A string to be translated must be a literal: tools collect it from the source.';

export default tseslint.config(
  { ignores: ['lib/', 'node_modules/', '.test/'] },
  ...tseslint.configs.recommended,
  {
    files: ['**/*.tsx'],
    ...jsxA11y.flatConfigs.strict,
    rules: {
      ...jsxA11y.flatConfigs.strict.rules,
      // What scrolls must be reachable with the keyboard (axe: scrollable-region-focusable); such elements have these names.
      'jsx-a11y/no-noninteractive-tabindex': ['error', { tags: ['ol', 'pre'], roles: ['group', 'log', 'region'] }],
      // Keys and drops bubble up from the controls inside; a click must have its own control.
      'jsx-a11y/no-noninteractive-element-interactions': ['error', { handlers: ['onClick', 'onDblClick', 'onMouseDown', 'onMouseUp'] }]
    }
  },
  reactHooks.configs.flat['recommended-latest'],
  {
    rules: {
      // It does not know Preact's useRef, and takes every write to `current` for a change of a fixed value.
      'react-hooks/immutability': 'off',
      eqeqeq: 'error',
      'max-lines': ['error', { max: 320, skipBlankLines: true, skipComments: true }],
      '@typescript-eslint/consistent-type-imports': 'error',
      '@typescript-eslint/explicit-function-return-type': ['error', { allowExpressions: true }],
      'no-restricted-syntax': [
        'error',
        { selector: 'MemberExpression[property.name=/^(innerHTML|outerHTML|insertAdjacentHTML)$/]', message: NO_HTML },
        { selector: "JSXAttribute[name.name='dangerouslySetInnerHTML']", message: NO_HTML },
        { selector: "CallExpression[callee.property.name='__'][arguments.0.type!='Literal']", message: LITERAL },
        { selector: "CallExpression[callee.property.name='_n'][arguments.0.type!='Literal']", message: LITERAL }
      ]
    }
  },
  { files: ['**/*.mjs'], rules: { '@typescript-eslint/explicit-function-return-type': 'off' } },
  { files: ['shared/language.ts'], rules: { 'no-restricted-syntax': 'off' } }, // hands strings on
  { files: ['tests/**'], rules: { 'no-restricted-syntax': 'off' } }
);
