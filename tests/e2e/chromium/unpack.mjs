// Unpack the browser, its libraries and its fonts into the folder that TMPDIR names.
import { copyFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { inflate } from "@sparticuz/chromium";

const packed = join(dirname(fileURLToPath(import.meta.resolve("@sparticuz/chromium"))), "..", "bin");
for (const name of ["al2023.tar.br", "fonts.tar.br", "chromium.br"]) await inflate(join(packed, name));
copyFileSync("fonts.conf", join(tmpdir(), "fonts", "fonts.conf"));
