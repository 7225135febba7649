// Whose data these are.
const root = element.querySelector(".ai-footer");
follow((value) => {
  root.replaceChildren(
    ...value.lines.map(([head, text]) => h("p", {}, h("b", {}, head), " ", text)),
  );
});
