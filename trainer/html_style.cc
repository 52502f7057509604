// The page's looks and its few lines of script; charts look the same in files of their own.
#include <fmt/format.h>

#include "slipstream/trainer/html_internal.h"

namespace slip::html {

namespace {

constexpr Colour colours[] = {
    {"page", "#f5f6f8", "#0e1116"},       {"card", "#ffffff", "#161b22"},
    {"edge", "#dfe3e8", "#2b323c"},       {"text", "#1a2129", "#e8ecf1"},
    {"soft", "#5c6875", "#9aa7b5"},       {"faint", "#e9ecf0", "#232a33"},
    {"accent", "#c2410c", "#ff9d5c"},     {"c0", "#2f6bdb", "#6ea1ff"},
    {"c1", "#d9620f", "#ff9d5c"},         {"c2", "#0b8f7c", "#37c9b1"},
    {"c3", "#b5379f", "#ee7fd9"},         {"c4", "#6d52c9", "#ab94ff"},
    {"c5", "#a67808", "#e6bd4a"},         {"c6", "#1789b5", "#55c2ea"},
    {"c7", "#c43c4c", "#ff8090"},         {"compute", "#4a7fd6", "#5b8fe6"},
    {"wait", "#f2b8a2", "#84452f"},       {"apply", "#3aa981", "#37b58a"},
    {"send", "#9a6fd0", "#a884e0"},       {"evaluate", "#9aa5b1", "#6f7b88"},
    {"on-compute", "#ffffff", "#0e1116"},
};

const char* const page_style = R"css(
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--text);
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial,
  sans-serif; }
main { max-width: 1280px; margin: 0 auto; padding: 36px 28px 60px; }
header { display: flex; align-items: flex-start; gap: 20px; margin-bottom: 26px; }
header div { flex: 1; }
h1 { font-size: 32px; line-height: 1.2; margin: 0 0 8px; letter-spacing: -0.015em; }
h2 { font-size: 21px; margin: 40px 0 14px; letter-spacing: -0.01em; }
h3 { font-size: 16px; margin: 0 0 10px; font-weight: 600; }
h3 small { font-weight: 400; color: var(--soft); font-size: 14px; margin-left: 8px; }
p { margin: 0 0 10px; }
.facts, .note, .legend, footer { color: var(--soft); font-size: 14.5px; }
.facts span + span::before { content: "·"; margin: 0 8px; }
button.theme { border: 1px solid var(--edge); background: var(--card); color: var(--soft);
  border-radius: 8px;
  font: inherit; font-size: 14px; padding: 5px 12px; cursor: pointer; }
.card { background: var(--card); border: 1px solid var(--edge); border-radius: 12px;
  padding: 18px 20px; margin: 0 0 18px; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(165px, 1fr)); gap: 14px; }
.tile { background: var(--card); border: 1px solid var(--edge); border-radius: 12px;
  padding: 14px 18px 12px; }
.tile b { display: block; font-size: 28px; line-height: 1.25; font-weight: 650;
  letter-spacing: -0.02em; font-variant-numeric: tabular-nums; }
.tile span { color: var(--soft); font-size: 14px; }
.tile em { display: block; color: var(--soft); font-style: normal; font-size: 13px;
  min-height: 1.5em; }
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(460px, 100%), 1fr)); gap: 18px; }
.charts .card { margin: 0; padding: 14px 16px 8px; position: relative; }
figcaption { font-weight: 600; margin: 0 0 4px 4px; }
svg { display: block; width: 100%; height: auto; font-family: inherit; }
.cursor { stroke: var(--soft); stroke-width: 1; visibility: hidden; }
.run { transition: opacity .15s; } .dim .run { opacity: .12; } .dim .run.lit { opacity: 1; }
.legend span { display: inline-flex; align-items: center; margin-right: 20px; }
.legend i, td i, h3 i { display: inline-block; width: 12px; height: 12px; border-radius: 3px;
  margin-right: 7px; }
.legend [data-run] { cursor: default; color: var(--text); }
.lane { fill: var(--faint); opacity: .55; }
.rank { fill: var(--soft); font-size: 12.5px; font-variant-numeric: tabular-nums; } .rank.slow {
  fill: var(--accent); font-weight: 700; }
.count { fill: var(--on-compute); font-size: 10.5px; text-anchor: middle; pointer-events: none;
  font-variant-numeric: tabular-nums; }
rect.compute { fill: var(--compute); } rect.wait { fill: var(--wait); } rect.apply {
  fill: var(--apply); }
rect.send { fill: var(--send); } rect.evaluate { fill: var(--evaluate); }
i.compute { background: var(--compute); } i.wait { background: var(--wait); } i.apply {
  background: var(--apply); }
i.send { background: var(--send); } i.evaluate { background: var(--evaluate); }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: 15px;
  font-variant-numeric: tabular-nums; }
th { color: var(--soft); font-weight: 500; font-size: 13.5px; text-align: right;
  padding: 0 14px 8px; white-space: nowrap; }
td { text-align: right; padding: 7px 14px; border-top: 1px solid var(--faint);
  white-space: nowrap; }
th:first-child, td:first-child { text-align: left; padding-left: 2px; }
th:last-child, td:last-child { padding-right: 2px; }
.headline td { font-size: 17px; padding-top: 9px; padding-bottom: 9px; }
.headline td:first-child { font-weight: 600; }
td.best { font-weight: 700; } td .bar { display: inline-block; width: 110px; text-align: left;
  margin-right: 10px; } td .bar i { height: 9px; border-radius: 2px; margin: 0; opacity: .85;
  vertical-align: 1px; } .times { display: inline-block; min-width: 3.4em; } .missed {
  color: var(--soft); font-size: 15px; }
td .share { display: flex; width: 220px; height: 11px; border-radius: 3px; overflow: hidden;
  background: var(--faint); margin-left: auto; }
td .share i { width: auto; height: auto; margin: 0; border-radius: 0; }
td.slow { color: var(--accent); font-weight: 700; }
.options td { text-align: left; } .options th { text-align: left; } .options td:first-child {
  color: var(--soft); }
.options tr.differs td { background: color-mix(in srgb, var(--accent) 9%, transparent); }
details > summary { cursor: pointer; font-weight: 600; } details[open] > summary {
  margin-bottom: 14px; }
#tip { position: fixed; z-index: 9; pointer-events: none; visibility: hidden;
  background: var(--text); color: var(--page);
  font-size: 13.5px; line-height: 1.45; padding: 6px 11px; border-radius: 7px; max-width: 380px;
  white-space: pre; font-variant-numeric: tabular-nums; }
footer { margin-top: 34px; }
@media (max-width: 600px) { main { padding: 20px 12px 40px; } .card { padding: 14px 12px; } }
)css";

const char* const chart_basics = R"css(
.grid { stroke: var(--faint); } .axis { stroke: var(--edge); stroke-width: 1.5; }
.tick { fill: var(--soft); font-size: 13.5px; font-variant-numeric: tabular-nums; }
.axis-name { fill: var(--soft); font-size: 14px; }
.target { stroke: var(--soft); stroke-width: 1.3; stroke-dasharray: 3 4; } .target-name {
  fill: var(--soft); font-size: 13.5px; }
.line { fill: none; stroke-width: 2.4; stroke-linejoin: round; stroke-linecap: round; }
.dash1 { stroke-dasharray: 8 5; } .dash2 { stroke-dasharray: 2 5; }
.reached { stroke: var(--card); stroke-width: 2.5; }
)css";

std::string declare(std::string_view Colour::*which) {
  std::string css;
  for (const Colour& colour : colours) css += fmt::format(" --{}: {};", colour.name, colour.*which);
  return css;
}

}  // namespace

std::span<const Colour> palette() { return colours; }

std::string chart_style() {
  std::string css = chart_basics;
  for (int c = 0; c < line_colours; ++c) {
    css += fmt::format(
        ".line.c{0} {{ stroke: var(--c{0}); }} circle.c{0}, rect.c{0} {{ fill: var(--c{0}); }}\n",
        c);
  }
  return css;
}

std::string style() {
  std::string css = fmt::format(
      ":root {{ color-scheme: light;{} }}\n"
      ":root[data-theme=\"dark\"] {{ color-scheme: dark;{} }}",
      declare(&Colour::light), declare(&Colour::dark));
  css += page_style;
  for (int c = 0; c < line_colours; ++c) {
    css += fmt::format("i.c{0} {{ background: var(--c{0}); }}\n", c);
  }
  return css + chart_style();
}

const char* const theme_script =
    "document.documentElement.dataset.theme = "
    "matchMedia('(prefers-color-scheme: dark)').matches ? 'dark' : 'light';";

const char* const script = R"js(
const root = document.documentElement;
const tip = document.getElementById('tip');
function show(text, event) {
  tip.textContent = text;
  tip.style.visibility = 'visible';
  const flip = event.clientX + tip.offsetWidth + 30 > innerWidth;
  tip.style.left = (flip ? event.clientX - tip.offsetWidth - 14 : event.clientX + 16) + 'px';
  tip.style.top = Math.min(event.clientY + 14, innerHeight - tip.offsetHeight - 8) + 'px';
}
const hide = () => { tip.style.visibility = 'hidden'; };
document.querySelector('button.theme').onclick = () => {
  root.dataset.theme = root.dataset.theme === 'dark' ? 'light' : 'dark';
};
for (const svg of document.querySelectorAll('svg.timeline')) {
  svg.onmousemove = e => e.target.dataset.tip ? show(e.target.dataset.tip, e) : hide();
  svg.onmouseleave = hide;
}
for (const svg of document.querySelectorAll('svg.chart')) {
  const lines = JSON.parse(svg.dataset.lines);
  const cursor = svg.querySelector('.cursor');
  svg.onmousemove = e => {
    const scale = svg.viewBox.baseVal.width / svg.clientWidth;
    const x = (e.clientX - svg.getBoundingClientRect().left) * scale;
    const distance = p => Math.abs(p[0] - x);
    const rows = [];
    let best = null;
    for (const line of lines) {
      let near = null;
      for (const p of line.points) if (!near || distance(p) < distance(near)) near = p;
      if (!near || x > line.points[line.points.length - 1][0] + 12) continue;
      rows.push(line.name + '  ' + near[3] + '  at ' + near[2] + ' s');
      if (!best || distance(near) < distance(best)) best = near;
    }
    cursor.style.visibility = best ? 'visible' : 'hidden';
    if (!best) return hide();
    cursor.setAttribute('x1', best[0]); cursor.setAttribute('x2', best[0]);
    show(rows.join('\n'), e);
  };
  svg.onmouseleave = () => { cursor.style.visibility = 'hidden'; hide(); };
}
for (const name of document.querySelectorAll('.legend [data-run]')) {
  const lit = on => {
    document.querySelector('.charts').classList.toggle('dim', on);
    for (const g of document.querySelectorAll('.run')) {
      g.classList.toggle('lit', on && g.dataset.run === name.dataset.run);
    }
  };
  name.onmouseenter = () => lit(true);
  name.onmouseleave = () => lit(false);
}
)js";

}  // namespace slip::html
