// Charts from the JSON beside them, in the colours of tokens.css. The same figures stand in a
// table under each chart, so a chart is never the only way to read them.
const TEXT_PX = 11.5;
const LABEL_GAP_PX = 14;

// ECharts writes style attributes, which the page's content policy forbids; the same text through
// the style object is allowed.
SVGElement.prototype.setAttribute = function setAttribute(name, value) {
  if (name === "style") this.style.cssText = value;
  else Element.prototype.setAttribute.call(this, name, value);
};

function ink() {
  const read = getComputedStyle(document.documentElement);
  const token = (name) => read.getPropertyValue(name).trim();
  return {
    series: [1, 2, 3, 4, 5, 6, 7, 8].map((n) => token(`--c${n}`)),
    text: token("--ink-2"), faint: token("--ink-3"), line: token("--line"),
    panel: token("--panel"), border: token("--line-2"), font: token("--font"),
  };
}

function usd(value) {
  if (value === 0) return "$0";
  if (value >= 1000) return `$${Math.round(value).toLocaleString("en-US")}`;
  if (value >= 0.995) return `$${value >= 10 && Number.isInteger(value) ? value : value.toFixed(2).replace(/\.00$/, "")}`;
  return `$${Number(value.toPrecision(2)).toFixed(12).replace(/0+$/, "").replace(/\.(\d)$/, ".$10")}`;
}

function signed(value) {
  return value < 0 ? `\u2212${usd(-value)}` : usd(value);
}

const escaped = document.createElement("span");
function safe(text) {
  escaped.textContent = text;
  return escaped.innerHTML;
}

function base(c) {
  return {
    animation: false,
    textStyle: { fontFamily: c.font, fontSize: TEXT_PX, color: c.faint },
    tooltip: {
      className: "chart-tip", backgroundColor: c.panel, borderColor: c.border, borderWidth: 1,
      padding: [8, 12], shadowBlur: 0, extraCssText: "box-shadow:none", confine: true, transitionDuration: 0,
      textStyle: { color: c.text, fontFamily: c.font, fontSize: 12 },
    },
  };
}

function axis(c, more) {
  return {
    axisLine: { show: false, onZero: false }, axisTick: { show: false }, minorTick: { show: false },
    splitLine: { lineStyle: { color: c.line } },
    axisLabel: { color: c.faint, fontSize: TEXT_PX, hideOverlap: true },
    nameTextStyle: { color: c.faint, fontSize: TEXT_PX },
    ...more,
  };
}

function speed(data, c) {
  const front = [...data.front].reverse();
  return {
    ...base(c),
    grid: { left: 8, right: 24, top: 30, bottom: 34, containLabel: true },
    xAxis: axis(c, { type: "log", logBase: 2, name: "tok/s, log · faster →", nameLocation: "middle", nameGap: 26, splitLine: { show: false },
      min: (v) => v.min / 1.3, max: (v) => v.max * 1.5,
      axisLabel: { color: c.faint, fontSize: TEXT_PX, formatter: (v) => `${Math.round(v)}`, showMinLabel: false, showMaxLabel: false } }),
    yAxis: axis(c, { type: "value", inverse: true, name: "↑ cheaper", nameLocation: "start", nameGap: 12,
      nameTextStyle: { color: c.faint, fontSize: TEXT_PX, align: "left" }, min: 0,
      axisLabel: { color: c.faint, fontSize: TEXT_PX, formatter: usd } }),
    series: [
      { type: "line", step: "start", data: front, symbol: "none", silent: true, z: 1,
        lineStyle: { color: c.faint, type: [3, 4], width: 1 } },
      { type: "scatter", z: 3,
        data: data.points.map((p) => ({
          value: [p.speed, p.usd], name: p.name, n: p.n, symbolSize: p.own ? 14 : 11,
          itemStyle: { color: c.series[p.colour - 1], opacity: 1 },
        })),
        label: { show: true, position: "right", formatter: "{b}", color: c.text, fontSize: TEXT_PX },
        labelLayout: { moveOverlap: "shiftY" },
        tooltip: { formatter: (p) => `<b>${safe(p.name)}</b><br>${usd(p.value[1])} per M · ${p.value[0].toFixed(1)} tok/s<br><span class="muted">n = ${p.data.n}</span>` },
      },
    ],
  };
}

function steps(data, c, narrow) {
  const shown = data.map((s) => ({ ...s, points: s.points.filter(([, price]) => price > 0) })).filter((s) => s.points.length);
  return {
    ...base(c),
    grid: { left: 8, right: narrow ? 12 : 112, top: 14, bottom: narrow ? 54 : 14, containLabel: true },
    legend: { show: narrow, bottom: 0, type: "scroll", textStyle: { color: c.text, fontSize: TEXT_PX }, itemWidth: 14, itemHeight: 2 },
    xAxis: axis(c, { type: "time", splitNumber: 4, splitLine: { show: false },
      axisLabel: { color: c.faint, fontSize: TEXT_PX, hideOverlap: true, formatter: { year: "{yyyy}", month: "{MMM}", day: "{d} {MMM}", hour: "{HH}:{mm}" } } }),
    yAxis: axis(c, { type: "log", logBase: 2, min: (v) => v.min / 1.4, max: (v) => v.max * 1.4,
      axisLabel: { color: c.faint, fontSize: TEXT_PX, formatter: usd, showMinLabel: false, showMaxLabel: false } }),
    series: shown.map((s) => ({
      name: s.name, type: "line", step: "end", data: s.points, symbol: "none",
      lineStyle: { width: s.own ? 2.2 : 1.5, color: c.series[s.colour - 1] }, itemStyle: { color: c.series[s.colour - 1] },
      endLabel: { show: !narrow, formatter: "{a}", color: c.series[s.colour - 1], fontSize: TEXT_PX, width: 104, overflow: "truncate" },
    })),
    tooltip: { ...base(c).tooltip, trigger: "axis",
      formatter: (points) => `<b>${echarts.time.format(points[0].axisValue, "{d} {MMM} {yyyy}", true)}</b>` + points.map((p) => `<br>${safe(p.seriesName)} ${usd(p.value[1])}`).join("") },
  };
}

function spend(data, c) {
  const bars = data.series.flatMap((s) => [
    { ...s, values: s.actual, opacity: 1 }, { ...s, values: s.forecast, opacity: 0.3, name: `${s.name}, forecast` },
  ]);
  return {
    ...base(c),
    grid: { left: 8, right: 10, top: 26, bottom: 12, containLabel: true },
    xAxis: axis(c, { type: "category", data: data.days, splitLine: { show: false } }),
    yAxis: axis(c, { type: "value", axisLabel: { color: c.faint, fontSize: TEXT_PX, formatter: usd } }),
    series: bars.map((s) => ({
      name: s.name, type: "bar", stack: "day", data: s.values, barCategoryGap: "22%",
      itemStyle: { color: c.series[s.colour - 1], opacity: s.opacity, borderColor: c.panel, borderWidth: 0.5 },
    })),
    tooltip: { ...base(c).tooltip, trigger: "axis", axisPointer: { type: "none" },
      formatter: (points) => `<b>${safe(points[0].axisValueLabel)}</b>` + points.filter((p) => p.value).map((p) => `<br>${safe(p.seriesName)} ${usd(p.value)}`).join("") },
  };
}

function margin(data, c) {
  const bar = (name, values, colour) => ({
    name, type: "bar", data: values, barGap: "0%", barCategoryGap: "30%", itemStyle: { color: c.series[colour - 1] },
  });
  return {
    ...base(c),
    grid: { left: 8, right: 10, top: 26, bottom: 12, containLabel: true },
    xAxis: axis(c, { type: "category", data: data.days, splitLine: { show: false } }),
    yAxis: axis(c, { type: "value", axisLabel: { color: c.faint, fontSize: TEXT_PX, formatter: signed } }),
    series: [
      bar("revenue", data.revenue, 1), bar("cost", data.cost, 2),
      { name: "margin", type: "line", data: data.margin, symbol: "none", lineStyle: { width: 2, color: c.series[2] }, itemStyle: { color: c.series[2] } },
    ],
    tooltip: { ...base(c).tooltip, trigger: "axis", axisPointer: { type: "none" },
      formatter: (points) => `<b>${safe(points[0].axisValueLabel)}</b>` + points.map((p) => `<br>${safe(p.seriesName)} ${signed(p.value)}`).join("") },
  };
}

const KINDS = { speed, steps, spend, margin };

function draw(place) {
  const data = JSON.parse(document.getElementById(place.dataset.chart).textContent);
  const chart = echarts.getInstanceByDom(place) ?? echarts.init(place, null, { renderer: "svg" });
  chart.setOption(KINDS[place.dataset.kind](data, ink(), place.clientWidth < 520), { notMerge: true });
  if (place.dataset.kind === "steps") spreadEndLabels(chart);
}

// Lines that end close together have their labels moved apart, in the order of the lines.
function spreadEndLabels(chart) {
  const ends = chart.getOption().series.map((series, index) => {
    const [, price] = series.data.at(-1);
    return { index, at: chart.convertToPixel({ yAxisIndex: 0 }, price) };
  }).sort((a, b) => a.at - b.at);
  let lowest = -Infinity;
  for (const end of ends) {
    end.shown = Math.max(end.at, lowest + LABEL_GAP_PX);
    lowest = end.shown;
  }
  const series = [];
  for (const end of ends) series[end.index] = { endLabel: { offset: [0, end.shown - end.at] } };
  chart.setOption({ series });
}

export function startCharts() {
  const places = [...document.querySelectorAll("[data-chart]")];
  const drawAll = () => places.forEach(draw);
  drawAll();
  const sized = new ResizeObserver((entries) => {
    for (const { target } of entries) { echarts.getInstanceByDom(target)?.resize(); draw(target); }
  });
  places.forEach((place) => sized.observe(place));
  document.addEventListener("page-refreshed", drawAll);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawAll);
}
