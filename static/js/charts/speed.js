// Price against speed: a point for each offer, the Pareto front dashed.
import { safe, usd } from "./figures.js";
import { axis, base } from "./frame.js";
import { TEXT_PX } from "./ink.js";

export function speed(data, ink) {
  return {
    ...base(ink),
    grid: { left: 8, right: 24, top: 30, bottom: 34, containLabel: true },
    xAxis: axis(ink, {
      type: "log",
      logBase: 2,
      name: "tok/s, log · faster →",
      nameLocation: "middle",
      nameGap: 26,
      splitLine: { show: false },
      min: (seen) => seen.min / 1.3,
      max: (seen) => seen.max * 1.5,
      label: {
        formatter: (value) => `${Math.round(value)}`,
        showMinLabel: false,
        showMaxLabel: false,
      },
    }),
    yAxis: axis(ink, {
      type: "value",
      inverse: true,
      name: "↑ cheaper",
      nameLocation: "start",
      nameGap: 12,
      nameTextStyle: { color: ink.faint, fontSize: TEXT_PX, align: "left" },
      min: 0,
      label: { formatter: usd },
    }),
    series: [front(data.front, ink), offers(data.points, ink)],
  };
}

function front(points, ink) {
  return {
    type: "line",
    step: "start",
    data: points.toReversed(),
    symbol: "none",
    silent: true,
    z: 1,
    lineStyle: { color: ink.faint, type: [3, 4], width: 1 },
  };
}

function offers(points, ink) {
  return {
    type: "scatter",
    z: 3,
    data: points.map((point) => ({
      value: [point.speed, point.usd],
      name: point.name,
      n: point.n,
      symbolSize: point.own ? 14 : 11,
      itemStyle: { color: ink.series[point.colour - 1], opacity: 1 },
    })),
    label: { show: true, position: "right", formatter: "{b}", color: ink.text, fontSize: TEXT_PX },
    labelLayout: { moveOverlap: "shiftY" },
    tooltip: { formatter: tip },
  };
}

function tip({ name, value: [tokensPerS, price], data }) {
  const figures = `${usd(price)} per M · ${tokensPerS.toFixed(1)} tok/s`;
  return `<b>${safe(name)}</b><br>${figures}<br><span class="muted">n = ${data.n}</span>`;
}
