import { fileURLToPath } from "node:url";

/** This package. */
export const ROOT = fileURLToPath(new URL("..", import.meta.url));
/** The modules that a node serves. */
export const ASSETS = fileURLToPath(new URL("../../../pushsvc/web/assets", import.meta.url));
