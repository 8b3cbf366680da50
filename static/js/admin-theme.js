// The admin switches a class, tokens.css an attribute: keep the second after the first.
const root = document.documentElement;
const follow = () => {
  root.dataset.theme = root.classList.contains("dark") ? "dark" : "light";
};
follow();
new MutationObserver(follow).observe(root, { attributes: true, attributeFilter: ["class"] });
