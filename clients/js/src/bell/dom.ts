const SVG = "http://www.w3.org/2000/svg";

/** The icons: what a pen draws in a square of 24. */
export const ICONS = {
  bell: "M6 10a6 6 0 0 1 12 0c0 5 2 5.5 2 7H4c0-1.5 2-2 2-7ZM10 20.5a2.2 2.2 0 0 0 4 0M12 4V2.5",
  read: "m5 12.5 4.5 4.5L19 7.5",
  unread: "M12 7.5a4.5 4.5 0 1 0 0 9a4.5 4.5 0 0 0 0-9Z",
  archive: "M3.5 4.5h17v4h-17zM5 8.5v11h14v-11M10 12.5h4",
};

/** An element of the shadow tree: its `part` names it for the bell's style and for the page's. */
export function make<K extends keyof HTMLElementTagNameMap>(
  tag: K,
  part: string,
  ...children: Node[]
): HTMLElementTagNameMap[K] {
  const made = document.createElement(tag);
  if (part) made.setAttribute("part", part);
  if (made instanceof HTMLButtonElement) made.type = "button";
  made.append(...children);
  return made;
}

/** An icon, which says nothing to who cannot see it. */
export function icon(path: string): SVGElement {
  const svg = document.createElementNS(SVG, "svg");
  const line = document.createElementNS(SVG, "path");
  line.setAttribute("d", path);
  for (const [name, value] of [
    ["viewBox", "0 0 24 24"],
    ["aria-hidden", "true"],
    ["part", "icon"],
  ] as const) {
    svg.setAttribute(name, value);
  }
  svg.append(line);
  return svg;
}

/** Sets a text; what is the same is left alone, as assistive technology would read it again. */
export function say(node: Node, text: string): void {
  if (node.textContent !== text) node.textContent = text;
}

/** Names a button, for who sees it and for who does not. */
export function name(element: HTMLElement, label: string, about = ""): void {
  element.title = label;
  element.setAttribute("aria-label", about ? `${label}: ${about}` : label);
}
