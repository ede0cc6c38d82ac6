import { execFileSync } from "node:child_process";
import { readdirSync, rmSync } from "node:fs";
import { build } from "esbuild";
import { ROOT } from "./paths.js";

// The tests are bundled, because Node 20 reads no TypeScript.
process.chdir(ROOT);
rmSync(".test", { recursive: true, force: true });
const entryPoints = readdirSync("test").map((name) => `test/${name}`);
await build({
  entryPoints,
  outdir: ".test",
  outExtension: { ".js": ".mjs" },
  bundle: true,
  platform: "node",
  format: "esm",
  sourcemap: "inline",
});
const built = readdirSync(".test").map((name) => `.test/${name}`);
try {
  execFileSync(process.execPath, ["--test", ...built], { stdio: "inherit" });
} catch {
  process.exitCode = 1;
}
