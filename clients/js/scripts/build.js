import { execFileSync } from "node:child_process";
import { mkdirSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { assets, library } from "./bundle.js";
import { ASSETS, ROOT } from "./paths.js";

process.chdir(ROOT);
rmSync("dist", { recursive: true, force: true });
mkdirSync(ASSETS, { recursive: true });
execFileSync("node_modules/.bin/tsc", { stdio: "inherit" });
for (const [folder, modules] of [
  ["dist", await library()],
  [ASSETS, await assets()],
]) {
  for (const [name, contents] of Object.entries(modules)) {
    writeFileSync(join(folder, name), contents);
  }
}
