// A page of plain files. It lends the page's components what Gradio lends them on a server, and
// reads data as scripts, because from a disk a browser reads nothing else.
window.afterimage = (() => {
  const components = new Map(), taken = new Map(), scripts = new Map();
  const script = (address) => {
    if (!scripts.has(address)) {
      scripts.set(address, new Promise((resolve, reject) => {
        const node = document.createElement("script");
        node.src = address;
        node.onload = resolve;
        node.onerror = () => { scripts.delete(address); node.remove(); reject(new Error(`${address} is not there or cannot be read`)); };
        document.head.append(node);
      }));
    }
    return scripts.get(address);
  };
  const component = (name, start) => components.set(name, start);
  const take = (name, value) => taken.set(name, value);
  // A value of data/NAME.js, read once.
  const load = async (name) => {
    if (!taken.has(name)) await script(`data/${name}.js`);
    if (!taken.has(name)) throw new Error(`data/${name}.js holds something else`);
    return taken.get(name);
  };
  // Pictures that a value holds several times are written once, and pointed at.
  const whole = ({ pictures, value }) => {
    const follow = (part) => {
      if (Array.isArray(part)) return part.map(follow);
      if (part === null || typeof part !== "object") return part;
      if ("@" in part) return pictures[part["@"]];
      return Object.fromEntries(Object.entries(part).map(([key, one]) => [key, follow(one)]));
    };
    return follow(value);
  };
  // What was written as what differs from another value: [value], a change of each part, or the
  // columns of rows that differ.
  const changed = (base, change) => {
    if (Array.isArray(change)) return change[0];
    if ("|" in change) return base.map((row, i) => ({ ...row, ...Object.fromEntries(Object.entries(change["|"]).map(([key, column]) => [key, column[i]])) }));
    const copy = { ...base };
    for (const [key, part] of Object.entries(change)) copy[key] = changed(base[key], part);
    return copy;
  };
  // Puts a component into a node; what comes back shows a value in it.
  const mount = async (name, node, trigger, server = {}) => {
    if (!components.has(name)) await script(`page/${name}.js`);
    const holder = document.createElement("div");
    holder.className = `ai-${name}`;
    node.append(holder);
    const props = { value: null };
    let told = () => {};
    components.get(name)(node, props, (_, update) => { told = update; }, trigger, server);
    return (value) => { props.value = value; told(); };
  };
  return { component, take, load, whole, changed, mount };
})();
document.addEventListener("DOMContentLoaded", () => {
  let kept = null;
  try { kept = localStorage.getItem("afterimage-theme"); } catch { /* private mode */ }
  if (!kept && window.matchMedia("(prefers-color-scheme: dark)").matches) document.body.classList.add("dark");
  window.afterimage.mount("app", document.getElementById("site"), () => {});
});
