import tseslint from 'typescript-eslint';

const NO_HTML = 'Text from the agent must never be parsed as HTML: make elements.';

export default tseslint.config(
  { ignores: ['lib/', 'node_modules/', '.test/'] },
  ...tseslint.configs.recommended,
  {
    rules: {
      eqeqeq: 'error',
      'max-lines': ['error', { max: 320, skipBlankLines: true, skipComments: true }],
      '@typescript-eslint/consistent-type-imports': 'error',
      '@typescript-eslint/explicit-function-return-type': ['error', { allowExpressions: true }],
      'no-restricted-syntax': [
        'error',
        { selector: "MemberExpression[property.name=/^(innerHTML|outerHTML|insertAdjacentHTML)$/]", message: NO_HTML },
        { selector: "JSXAttribute[name.name='dangerouslySetInnerHTML']", message: NO_HTML }
      ]
    }
  },
  { files: ['**/*.mjs'], rules: { '@typescript-eslint/explicit-function-return-type': 'off' } },
  { files: ['tests/**'], rules: { 'no-restricted-syntax': 'off' } }
);
