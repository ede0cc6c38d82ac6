// Unpacks the browser, a font and the libraries that it needs into the temporary directory.
import { writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

import { inflate } from "@sparticuz/chromium";

const archives = new URL("../bin/", import.meta.resolve("@sparticuz/chromium"));
for (const name of ["fonts.tar.br", "al2023.tar.br", "chromium.br"]) {
  await inflate(fileURLToPath(new URL(name, archives)));
}

// Theirs looks for the fonts where functions in a cloud have them.
await writeFile(
  join(tmpdir(), "fonts", "fonts.conf"),
  `<?xml version="1.0"?>
<!DOCTYPE fontconfig SYSTEM "fonts.dtd">
<fontconfig>
  <dir prefix="relative">fonts</dir>
  <cachedir prefix="relative">cache</cachedir>
</fontconfig>
`,
);
