// Put before each component's script. Data reaches the page as text nodes and attributes only:
// nothing that came from a study, a file name or a link is ever parsed as markup.
const h = (tag, attributes = {}, ...children) => {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    const aria = name.startsWith("aria-");
    if (value === null || value === undefined || (value === false && !aria)) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (name === "value") node.value = value;
    else node.setAttribute(name, value === true && !aria ? "" : String(value));
  }
  node.append(...children.flat().filter((c) => c !== null && c !== undefined && c !== false));
  return node;
};
const setText = (node, text) => {
  if (node.textContent !== String(text)) node.textContent = text;
};
const setSource = (img, src) => {
  if (src && img.getAttribute("src") !== src) img.setAttribute("src", src);
};
const follow = (render) => {
  let last = null;
  const update = () => {
    const value = props.value;
    if (!value || typeof value !== "object") return;
    render(value, last);
    last = value;
  };
  watch("value", update);
  update();
};
