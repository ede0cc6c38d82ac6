import { InboxElement } from "./bell/element.js";

export { InboxElement };
export type { Opening, Ringing } from "./bell/element.js";
export type { Counted, Labels } from "./bell/labels.js";
export type { Shown } from "./bell/row.js";

const NAME = "pushsvc-inbox";

// A page may load the module twice, from two nodes or in two bundles; the first one stays.
if (globalThis.customElements && !customElements.get(NAME)) {
  customElements.define(NAME, InboxElement);
}
