// What was spent by day, stacked by model; the forecast stands faded on top.
import { usd } from "./figures.js";
import { dayFrame, dayTip } from "./frame.js";

const FORECAST_OPACITY = 0.3;

export function spend(data, ink) {
  const bars = data.series.flatMap((s) => [
    { ...s, values: s.actual, opacity: 1 },
    { ...s, values: s.forecast, opacity: FORECAST_OPACITY, name: `${s.name}, forecast` },
  ]);
  return {
    ...dayFrame(ink, data.days, usd),
    series: bars.map(({ name, values, colour, opacity }) => ({
      name,
      type: "bar",
      stack: "day",
      data: values,
      barCategoryGap: "22%",
      itemStyle: {
        color: ink.series[colour - 1],
        opacity,
        borderColor: ink.panel,
        borderWidth: 0.5,
      },
    })),
    tooltip: dayTip(ink, usd, (point) => point.value),
  };
}
