// What the house earns by day: revenue and cost as bars, the margin as a line.
import { signedUsd } from "./figures.js";
import { dayFrame, dayTip } from "./frame.js";

export function margin(data, ink) {
  const [revenue, cost, earned] = ink.series;
  return {
    ...dayFrame(ink, data.days, signedUsd),
    series: [
      bar("revenue", data.revenue, revenue),
      bar("cost", data.cost, cost),
      {
        name: "margin",
        type: "line",
        data: data.margin,
        symbol: "none",
        lineStyle: { width: 2, color: earned },
        itemStyle: { color: earned },
      },
    ],
    tooltip: dayTip(ink, signedUsd),
  };
}

function bar(name, data, color) {
  return { name, type: "bar", data, barGap: "0%", barCategoryGap: "30%", itemStyle: { color } };
}
