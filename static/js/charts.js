// Charts from the JSON beside them. The same figures stand in a table under each chart, so a chart
// is never the only way to read them. What a kind looks like: charts/.
import { ink } from "./charts/ink.js";
import { margin } from "./charts/margin.js";
import { speed } from "./charts/speed.js";
import { spend } from "./charts/spend.js";
import { spreadEndLabels, steps } from "./charts/steps.js";
import { allowSvgStyles } from "./charts/svg-styles.js";

const KINDS = { speed, steps, spend, margin };
const NARROW_BELOW_PX = 520;

function draw(place) {
  const { chart: source, kind } = place.dataset;
  const data = JSON.parse(document.getElementById(source).textContent);
  const chart = echarts.getInstanceByDom(place) ?? echarts.init(place, null, { renderer: "svg" });
  const narrow = place.clientWidth < NARROW_BELOW_PX;
  chart.setOption(KINDS[kind](data, ink(), narrow), { notMerge: true });
  if (kind === "steps") spreadEndLabels(chart);
}

export function startCharts() {
  allowSvgStyles();
  const places = [...document.querySelectorAll("[data-chart]")];
  const drawAll = () => places.forEach(draw);
  drawAll();
  const sized = new ResizeObserver((entries) => {
    for (const { target } of entries) {
      echarts.getInstanceByDom(target)?.resize();
      draw(target);
    }
  });
  places.forEach((place) => sized.observe(place));
  document.addEventListener("page-refreshed", drawAll);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawAll);
}
