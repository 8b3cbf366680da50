// What all charts have in common: type, axes, the tip under the pointer.
import { safe } from "./figures.js";
import { TEXT_PX } from "./ink.js";

export function base(ink) {
  return {
    animation: false,
    textStyle: { fontFamily: ink.font, fontSize: TEXT_PX, color: ink.faint },
    tooltip: {
      className: "chart-tip",
      backgroundColor: ink.panel,
      borderColor: ink.border,
      borderWidth: 1,
      padding: [8, 12],
      shadowBlur: 0,
      extraCssText: "box-shadow:none",
      confine: true,
      transitionDuration: 0,
      textStyle: { color: ink.text, fontFamily: ink.font, fontSize: 12 },
    },
  };
}

export function axis(ink, { label = {}, ...more }) {
  return {
    axisLine: { show: false, onZero: false },
    axisTick: { show: false },
    minorTick: { show: false },
    splitLine: { lineStyle: { color: ink.line } },
    axisLabel: { color: ink.faint, fontSize: TEXT_PX, ...label },
    nameTextStyle: { color: ink.faint, fontSize: TEXT_PX },
    ...more,
  };
}

// Bars by day: the days below, dollars at the side.
export function dayFrame(ink, days, money) {
  return {
    ...base(ink),
    grid: { left: 8, right: 10, top: 26, bottom: 12, containLabel: true },
    xAxis: axis(ink, {
      type: "category",
      data: days,
      splitLine: { show: false },
      label: { hideOverlap: true },
    }),
    yAxis: axis(ink, { type: "value", label: { formatter: money } }),
  };
}

// One line for the day and one for each series that has a figure there.
export function dayTip(ink, money, counts = () => true) {
  const line = (point) => `<br>${safe(point.seriesName)} ${money(point.value)}`;
  return {
    ...base(ink).tooltip,
    trigger: "axis",
    axisPointer: { type: "none" },
    formatter: (points) =>
      `<b>${safe(points[0].axisValueLabel)}</b>${points.filter(counts).map(line).join("")}`,
  };
}
