// What is linted: the page, which runs in browsers, and its tests, which run in Node.
import js from "@eslint/js";
import globals from "globals";

export default [
  { ignores: ["node_modules/"] },
  js.configs.recommended,
  {
    languageOptions: { ecmaVersion: 2022, sourceType: "module", globals: globals.browser },
    rules: { eqeqeq: "error", "no-var": "error", "prefer-const": "error", "no-eval": "error", "no-implied-eval": "error" },
  },
  { files: ["tests/*.js", "eslint.config.mjs"], languageOptions: { globals: { ...globals.node, ...globals.browser } } },
];
