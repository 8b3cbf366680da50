// ECharts writes style attributes, which the page's content policy forbids; the same text through
// the style object is allowed.
function setAttribute(name, value) {
  if (name === "style") this.style.cssText = value;
  else Element.prototype.setAttribute.call(this, name, value);
}

export function allowSvgStyles() {
  SVGElement.prototype.setAttribute = setAttribute;
}
