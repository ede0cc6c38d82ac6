// What independent validators find in the two documents: the arguments are their files, the output
// is one line of JSON for each finding.
import { readFileSync } from "node:fs";
import { Parser } from "@asyncapi/parser";
import { createConfig, lint } from "@redocly/openapi-core";
import core from "@stoplight/spectral-core";
import parsers from "@stoplight/spectral-parsers";
import rulesets from "@stoplight/spectral-rulesets";

const [openapi, asyncapi] = process.argv.slice(2);

function tell(rule, where, message) {
  console.log(JSON.stringify({ rule, where, message }));
}

const config = await createConfig({ extends: ["recommended-strict"] });
for (const { ruleId, location, message } of await lint({ ref: openapi, config })) {
  tell(ruleId, location[0]?.pointer ?? "", message);
}

const spectral = new core.Spectral();
spectral.setRuleset({ extends: [rulesets.oas, rulesets.asyncapi] });
for (const file of [openapi, asyncapi]) {
  const text = new core.Document(readFileSync(file, "utf8"), parsers.Json, file);
  for (const { code, path, message } of await spectral.run(text)) {
    tell(String(code), path.join("/"), message);
  }
}

const { document, diagnostics } = await new Parser().parse(readFileSync(asyncapi, "utf8"));
for (const { code, path, message } of diagnostics) {
  tell(String(code), path.join("/"), message);
}
if (document?.operations().length === 0) {
  tell("no-operations", "", "the document was not read");
}
if (!document) {
  tell("no-document", "", "the document was not read");
}
