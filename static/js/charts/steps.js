// Prices over time: a step line for each offer, since a price does not slope.
import { safe, usd } from "./figures.js";
import { axis, base } from "./frame.js";
import { TEXT_PX } from "./ink.js";

const LABEL_GAP_PX = 14;
const LABEL_WIDTH_PX = 104;
const DATES = { year: "{yyyy}", month: "{MMM}", day: "{d} {MMM}", hour: "{HH}:{mm}" };

export function steps(data, ink, narrow) {
  // A log axis has no place for a price of nothing.
  const priced = data.map((s) => ({ ...s, points: s.points.filter(([, price]) => price > 0) }));
  const shown = priced.filter((s) => s.points.length);
  return {
    ...base(ink),
    grid: {
      left: 8,
      right: narrow ? 12 : 112,
      top: 14,
      bottom: narrow ? 54 : 14,
      containLabel: true,
    },
    legend: {
      show: narrow,
      bottom: 0,
      type: "scroll",
      textStyle: { color: ink.text, fontSize: TEXT_PX },
      itemWidth: 14,
      itemHeight: 2,
    },
    xAxis: axis(ink, {
      type: "time",
      splitNumber: 4,
      splitLine: { show: false },
      label: { hideOverlap: true, formatter: DATES },
    }),
    yAxis: axis(ink, {
      type: "log",
      logBase: 2,
      min: (seen) => seen.min / 1.4,
      max: (seen) => seen.max * 1.4,
      label: { formatter: usd, showMinLabel: false, showMaxLabel: false },
    }),
    series: shown.map((s) => line(s, ink, narrow)),
    tooltip: { ...base(ink).tooltip, trigger: "axis", formatter: tip },
  };
}

function line({ name, points, own, colour }, ink, narrow) {
  const color = ink.series[colour - 1];
  return {
    name,
    type: "line",
    step: "end",
    data: points,
    symbol: "none",
    lineStyle: { width: own ? 2.2 : 1.5, color },
    itemStyle: { color },
    endLabel: {
      show: !narrow,
      formatter: "{a}",
      color,
      fontSize: TEXT_PX,
      width: LABEL_WIDTH_PX,
      overflow: "truncate",
    },
  };
}

function tip(points) {
  const day = echarts.time.format(points[0].axisValue, "{d} {MMM} {yyyy}", true);
  const prices = points.map((p) => `<br>${safe(p.seriesName)} ${usd(p.value[1])}`);
  return `<b>${day}</b>${prices.join("")}`;
}

// Lines that end close together have their labels moved apart, in the order of the lines.
export function spreadEndLabels(chart) {
  const ends = chart.getOption().series.map((series, index) => {
    const [, price] = series.data.at(-1);
    return { index, at: chart.convertToPixel({ yAxisIndex: 0 }, price) };
  });
  ends.sort((a, b) => a.at - b.at);
  let lowest = -Infinity;
  const series = [];
  for (const { index, at } of ends) {
    lowest = Math.max(at, lowest + LABEL_GAP_PX);
    series[index] = { endLabel: { offset: [0, lowest - at] } };
  }
  chart.setOption({ series });
}
