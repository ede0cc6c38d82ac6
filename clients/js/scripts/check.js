import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { assets, gzipped, WORKER } from "./bundle.js";
import { ASSETS, ROOT } from "./paths.js";

/** Most bytes, gzipped: of what a page loads to connect, of all parts of the client, of a bell, and of the worker. */
const BUDGETS = {
  "client.js": 7616,
  "all parts": 19712,
  "inbox.js with its store": 10240,
  "push-sw.js": 1536,
};
/** What a page with a bell loads beside the client. */
const BELL = ["inbox.js", "client-inbox.js"];

process.chdir(ROOT);
const troubles = [];
const fresh = await assets();
const sizes = { "all parts": 0, "inbox.js with its store": 0 };
for (const [name, contents] of Object.entries(fresh)) {
  sizes[name] = gzipped(contents);
  if (!["inbox.js", `${WORKER}.js`].includes(name)) sizes["all parts"] += sizes[name];
  if (BELL.includes(name)) sizes["inbox.js with its store"] += sizes[name];
  const path = join(ASSETS, name);
  if (!existsSync(path) || readFileSync(path, "utf8") !== contents) {
    troubles.push(`pushsvc/web/assets/${name} is not what the sources make: npm run build`);
  }
}
for (const name of readdirSync(ASSETS)) {
  if (!(name in fresh)) troubles.push(`pushsvc/web/assets/${name} is made by nothing: remove it`);
}
for (const [name, size] of Object.entries(sizes)) {
  const most = BUDGETS[name];
  console.log(`${name}: ${size}${most ? ` of ${most}` : ""} bytes, gzipped`);
  if (size > most) troubles.push(`${name}: ${size - most} bytes too many`);
}
if (readFileSync("package-lock.json", "utf8").includes('"resolved"')) {
  troubles.push("package-lock.json names a registry: take its resolved fields out");
}
for (const trouble of troubles) console.error(trouble);
process.exitCode = troubles.length ? 1 : 0;
