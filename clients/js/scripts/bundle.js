import { readFile } from "node:fs/promises";
import { gzipSync } from "node:zlib";
import { build, transform } from "esbuild";
import { minify } from "terser";

/** The modules: what every page loads, and the parts that it loads when it needs them. */
const PARTS = {
  index: "client",
  fallback: "client-fallback",
  tabs: "client-tabs",
  store: "client-inbox",
  push: "client-push",
  bell: "inbox",
};

/** The service worker: a script of its own, and no module, so that another one can import it. */
export const WORKER = "push-sw";

/** Each part is built alone: one that shared code with the others would be one more to load. */
const alone = {
  name: "parts",
  setup({ onResolve }) {
    onResolve({ filter: /.*/ }, ({ kind, path }) =>
      kind === "dynamic-import" ? { path, external: true } : undefined,
    );
  },
};

/** The parts find each other where a node serves them. */
const served = {
  name: "served",
  setup({ onResolve, resolve }) {
    onResolve({ filter: /\/parts\.js$/ }, ({ path, resolveDir, kind }) =>
      resolve(path.replace("parts.js", "parts.served.js"), { resolveDir, kind }),
    );
  },
};

/** A style sheet is the text of it. */
const styles = {
  name: "styles",
  setup({ onLoad }) {
    onLoad({ filter: /\.css$/ }, async ({ path }) => {
      const { code } = await transform(await readFile(path, "utf8"), {
        loader: "css",
        minify: true,
      });
      return { contents: code.trim(), loader: "text" };
    });
  },
};

/** What a framework brings, and the client itself, of which there is to be one. */
const framework = {
  name: "framework",
  setup({ onResolve }) {
    onResolve({ filter: /^(react|\.\/index\.js)$/ }, ({ path }) => ({ path, external: true }));
  },
};

async function built(part, plugins, format = "esm") {
  const { outputFiles } = await build({
    entryPoints: [`src/${part}.ts`],
    bundle: true,
    format,
    target: "es2022",
    write: false,
    plugins: [styles, ...plugins],
  });
  return outputFiles[0].text;
}

/** The modules of the npm package. They have no `import.meta`, which React Native cannot parse. */
export async function library() {
  const modules = {};
  for (const part of Object.keys(PARTS)) modules[`${part}.js`] = await built(part, [alone]);
  modules[`${WORKER}.js`] = await built(WORKER, [], "iife");
  // Next.js asks for the directive, as there is no client on a server.
  modules["react.js"] = `"use client";\n${await built("react", [framework])}`;
  return modules;
}

/** The modules that a node serves: they connect to where they came from. */
export async function assets() {
  const modules = {};
  const all = Object.entries(PARTS).map(([part, name]) => [name, built(part, [alone, served])]);
  for (const [name, code] of [...all, [WORKER, built(WORKER, [], "iife")]]) {
    const { code: small } = await minify(await code, {
      module: name !== WORKER,
      ecma: 2020,
      compress: { passes: 3, pure_getters: true, unsafe_arrows: true, unsafe_methods: true },
      format: { preamble: "/*! pushsvc client, Apache-2.0 */" },
    });
    modules[`${name}.js`] = `${small}\n`;
  }
  return modules;
}

/** Bytes when gzipped. */
export function gzipped(contents) {
  return gzipSync(contents, { level: 9 }).length;
}
