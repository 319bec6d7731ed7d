// A validator reads the OpenAPI document as a generator of clients would.
import { createConfig, lintFromString } from '@redocly/openapi-core';

const rules = {
  struct: 'error', 'no-unresolved-refs': 'error', 'path-parameters-defined': 'error',
  'path-declaration-must-exist': 'error', 'path-not-include-query': 'error', 'no-identical-paths': 'error',
  'no-path-trailing-slash': 'error', 'operation-operationId': 'error', 'operation-operationId-unique': 'error',
  'operation-operationId-url-safe': 'error', 'operation-parameters-unique': 'error', 'operation-summary': 'error',
  'security-defined': 'error', 'no-schema-type-mismatch': 'error',
  'no-required-schema-properties-undefined': 'error', 'no-unused-components': 'error',
};
const config = await createConfig({ rules });
const source = await (await fetch(`${process.env.BASE_URL}/openapi.json`)).text();
const problems = await lintFromString({ source, absoluteRef: 'openapi.json', config });
for (const { ruleId, message, location } of problems) {
  console.log(`${ruleId}: ${message} (${location[0]?.pointer})`);
}
process.exitCode = problems.length ? 1 : 0;
