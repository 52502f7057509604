#include "slipstream/trainer/html.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "slipstream/trainer/html_internal.h"
#include "slipstream/trainer/table.h"

namespace slip {
namespace html {

std::string escape(std::string_view text) {
  std::string safe;
  safe.reserve(text.size());
  for (const char c : text) {
    switch (c) {
      case '&':
        safe += "&amp;";
        break;
      case '<':
        safe += "&lt;";
        break;
      case '>':
        safe += "&gt;";
        break;
      case '"':
        safe += "&quot;";
        break;
      case '\'':
        safe += "&#39;";
        break;
      default:
        safe += c;
    }
  }
  return safe;
}

std::string format_seconds(double seconds) {
  if (seconds == 0 || seconds >= 1) return fmt::format("{:.3g} s", seconds);
  if (seconds >= 1e-3) return fmt::format("{:.3g} ms", seconds * 1e3);
  if (seconds >= 1e-6) return fmt::format("{:.3g} us", seconds * 1e6);
  return fmt::format("{:.3g} ns", seconds * 1e9);
}

std::string format_bytes(double bytes) {
  for (const auto& [unit, size] : {std::pair("TB", 1e12), {"GB", 1e9}, {"MB", 1e6}, {"kB", 1e3}}) {
    if (bytes >= size) return fmt::format("{:.3g} {}", bytes / size, unit);
  }
  return fmt::format("{:.0f} B", bytes);
}

namespace {

constexpr std::size_t most_worker_rows = 64;

bool is_virtual(const Report& report) { return report.transport == "sim"; }

std::string swatch(std::size_t run) {
  return fmt::format(R"(<i class="c{}"></i>)", run % line_colours);
}

std::string facts(const Report& report) {
  const auto option = [&](std::string_view name) {
    for (const auto& [key, value] : report.options) {
      if (key == name && !value.empty())
        return fmt::format("<span>{} {}</span>", name, escape(value));
    }
    return std::string();
  };
  return fmt::format(
      R"(<p class="facts"><span>{} workers</span><span>{}</span>{}{}{}<span>seed {}</span></p>)",
      report.workers, is_virtual(report) ? "simulated, virtual time" : escape(report.transport),
      option("task"), option("compute"), option("slow"), report.seed);
}

std::string tile(std::string_view label, std::string_view value, std::string_view note) {
  return fmt::format(R"(<div class="tile"><span>{}</span><b>{}</b><em>{}</em></div>)",
                     escape(label), escape(value), escape(note));
}

/// Compute and wait as shares of a worker's run; the rest is applying, sending and the like.
struct Shares {
  double compute = 0;
  double wait = 0;
};

Shares shares(const Report& report, const Report::Worker& worker) {
  const double all = std::max(report.seconds, worker.compute_seconds + worker.wait_seconds);
  if (all <= 0) return {};
  return {worker.compute_seconds / all, worker.wait_seconds / all};
}

double mean_wait(const Report& report) {
  double sum = 0;
  for (const Report::Worker& worker : report.per_worker) sum += shares(report, worker).wait;
  return report.per_worker.empty() ? 0 : sum / static_cast<double>(report.per_worker.size());
}

std::string tiles(const Report& report) {
  std::string html = R"(<section class="tiles">)";
  if (report.target) {
    const auto& reached = report.target->reached_at_seconds;
    html += tile(fmt::format("to {} {:.6g}", report.target->metric, report.target->value),
                 reached ? format_seconds(*reached) : "missed",
                 fmt::format("run of {}", format_seconds(report.seconds)));
  } else {
    html += tile("run", format_seconds(report.seconds), is_virtual(report) ? "virtual time" : "");
  }
  if (const auto per_iteration = report.seconds_per_iteration()) {
    html += tile("per iteration", format_seconds(*per_iteration), "mean of the workers");
  }
  const std::string loss = report.final.loss ? fmt::format("{:.4g}", *report.final.loss) : "";
  if (report.final.accuracy) {
    html += tile("final accuracy", fmt::format("{:.4f}", *report.final.accuracy),
                 loss.empty() ? "" : "loss " + loss);
  } else if (!loss.empty()) {
    html += tile("final loss", loss, "");
  }
  if (report.max_gap_seen) {
    html += tile("largest gap", fmt::format("{}", *report.max_gap_seen), "iterations");
  }
  if (!report.per_worker.empty()) {
    html +=
        tile("waiting", fmt::format("{:.0f} %", 100 * mean_wait(report)), "of the workers' time");
  }
  html += tile("sent", format_bytes(static_cast<double>(report.bytes_sent)),
               fmt::format("{} updates, {} late", report.updates.sent, report.updates.late));
  return html + "</section>";
}

std::vector<NamedReports> named_reports(std::span<const PageRun> runs) {
  std::vector<NamedReports> named;
  for (const PageRun& run : runs) named.push_back({run.name, {run.report}});
  return named;
}

std::string headline_table(std::span<const PageRun> runs) {
  const std::vector<NamedReports> reports = named_reports(runs);
  const Table table = comparison(reports);
  const std::vector<std::optional<double>> ups = speed_ups(reports);
  double fastest = 0;
  for (const auto& up : ups) fastest = std::max(fastest, up.value_or(0));

  std::string html = R"(<section class="card scroll"><table class="headline"><tr>)";
  for (const std::string& title : table.header) html += fmt::format("<th>{}</th>", escape(title));
  html += "</tr>";
  constexpr std::size_t target_column = 1;
  constexpr std::size_t speed_up_column = 3;
  for (std::size_t r = 0; r < table.rows.size(); ++r) {
    const auto& target = runs[r].report->target;
    const bool missed = target && !target->reached_at_seconds;
    html += "<tr>";
    for (std::size_t c = 0; c < table.rows[r].size(); ++c) {
      std::string before = c == 0 ? swatch(r) : "";
      std::string text = escape(table.rows[r][c]);
      bool best = false;
      if (c == target_column && missed) text = R"(<span class="missed">missed</span>)";
      if (c == speed_up_column && ups[r]) {
        before =
            fmt::format(R"(<span class="bar"><i class="c{}" style="width:{:.1f}%"></i></span>)",
                        r % line_colours, 100 * *ups[r] / fastest);
        text = fmt::format(R"(<span class="times">{}</span>)", text);
        best = *ups[r] == fastest;
      }
      html += fmt::format("<td{}>{}{}</td>", best ? R"( class="best")" : "", before, text);
    }
    html += "</tr>";
  }
  return html + "</table></section>";
}

std::string charts(std::span<const PageRun> runs) {
  const std::vector<NamedReports> reports = named_reports(runs);
  std::string drawn;
  for (const Curve& curve : curves()) {
    const LineChart chart = line_chart(reports, curve);
    if (!chart.lines.empty()) drawn += draw(chart);
  }
  if (drawn.empty()) return "";
  std::string legend;
  if (runs.size() > 1) {
    legend = R"(<p class="legend">)";
    for (std::size_t i = 0; i < runs.size(); ++i) {
      legend +=
          fmt::format(R"(<span data-run="{}">{}{}</span>)", i, swatch(i), escape(runs[i].name));
    }
    legend += "</p>";
  }
  return fmt::format(R"(<h2>Against time</h2>{}<section class="charts">{}</section>)", legend,
                     drawn);
}

std::string timelines(std::span<const PageRun> runs) {
  const Window window = first_iterations(runs);
  if (window.end <= window.begin) return "";
  std::string html = "<h2>What the workers did</h2>" + timeline_legend();
  for (std::size_t i = 0; i < runs.size(); ++i) {
    if (runs[i].spans.empty()) continue;
    html += fmt::format(
        R"(<section class="card"><h3>{}{}<small>{:.0f} % of the run spent waiting</small></h3>)"
        R"({}</section>)",
        runs.size() > 1 ? swatch(i) : "", escape(runs[i].name), 100 * mean_wait(*runs[i].report),
        draw_timeline(runs[i], window));
  }
  return html +
         R"(<p class="note">The first iterations, on one scale; the numbers are iterations.</p>)";
}

std::string worker_table(const Report& report) {
  std::string html =
      R"(<div class="scroll"><table><tr><th>worker</th><th>iterations</th><th>skipped</th>)"
      R"(<th>compute</th><th>wait</th><th>share of the run</th><th>CPU</th><th>sent</th></tr>)";
  const std::vector<double> slow = slowness(report);
  const std::vector<std::size_t> shown = shown_workers(report, most_worker_rows);
  for (const std::size_t index : shown) {
    const Report::Worker& worker = report.per_worker[index];
    const Shares share = shares(report, worker);
    const bool straggles = slow[index] >= 1.5;
    html += fmt::format(
        R"(<tr><td{}>{}{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td><span class="share">)"
        R"(<i class="compute" style="width:{:.1f}%"></i><i class="wait" style="width:{:.1f}%"></i>)"
        R"(</span></td><td>{}</td><td>{}</td></tr>)",
        straggles ? R"( class="slow")" : "", worker.rank,
        straggles ? fmt::format(" · {:.1f}× slower", slow[index]) : "", worker.iterations,
        worker.skipped, format_seconds(worker.compute_seconds), format_seconds(worker.wait_seconds),
        100 * share.compute, 100 * share.wait,
        worker.cpu_seconds ? format_seconds(*worker.cpu_seconds) : "-",
        format_bytes(static_cast<double>(worker.bytes_sent)));
  }
  html += "</table></div>";
  if (shown.size() < report.per_worker.size()) {
    html += fmt::format(
        R"(<p class="note">{} of {} workers: the slowest and an even choice of the others.</p>)",
        shown.size(), report.per_worker.size());
  }
  return html;
}

std::string worker_tables(std::span<const PageRun> runs) {
  std::string html = "<h2>Workers</h2>";
  for (std::size_t i = 0; i < runs.size(); ++i) {
    if (runs.size() == 1) {
      html += fmt::format(R"(<section class="card">{}</section>)", worker_table(*runs[i].report));
    } else {
      html += fmt::format(R"(<details class="card"><summary>{}</summary>{}</details>)",
                          escape(runs[i].name), worker_table(*runs[i].report));
    }
  }
  return html;
}

std::string option_table(std::span<const PageRun> runs) {
  std::vector<std::string> names;
  for (const PageRun& r : runs) {
    for (const auto& [name, value] : r.report->options) {
      if (std::find(names.begin(), names.end(), name) == names.end()) names.push_back(name);
    }
  }
  std::string html = R"(<details class="card options"><summary>Options, as resolved</summary>)"
                     R"(<div class="scroll"><table><tr><th></th>)";
  for (const PageRun& r : runs) html += fmt::format("<th>{}</th>", escape(r.name));
  html += "</tr>";
  for (const std::string& name : names) {
    std::vector<std::string> values;
    for (const PageRun& r : runs) {
      const auto found = std::find_if(r.report->options.begin(), r.report->options.end(),
                                      [&](const auto& option) { return option.first == name; });
      values.push_back(found == r.report->options.end() ? "-" : found->second);
    }
    const bool differs = std::count(values.begin(), values.end(), values.front()) !=
                         static_cast<std::ptrdiff_t>(values.size());
    html += fmt::format("<tr{}><td>{}</td>", differs ? R"( class="differs")" : "", escape(name));
    for (const std::string& value : values) html += fmt::format("<td>{}</td>", escape(value));
    html += "</tr>";
  }
  return html + "</table></div></details>";
}

}  // namespace
}  // namespace html

std::string html_page(std::string_view title, std::span<const PageRun> given) {
  std::vector<PageRun> runs(given.begin(), given.end());
  for (PageRun& run : runs) {
    if (run.name.empty()) run.name = run.report->protocol;
  }
  std::string body =
      fmt::format(R"(<header><div><h1>{}</h1>{}</div>)"
                  R"(<button class="theme" title="light or dark">◐ theme</button></header>)",
                  html::escape(title), runs.empty() ? "" : html::facts(*runs.front().report));
  if (!runs.empty()) {
    body += runs.size() == 1 ? html::tiles(*runs.front().report) : html::headline_table(runs);
    body += html::charts(runs) + html::timelines(runs) + html::worker_tables(runs) +
            html::option_table(runs);
    body += fmt::format("<footer>Slipstream {}</footer>",
                        html::escape(runs.front().report->slipstream));
  }
  return fmt::format(
      R"(<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{}</title><style>{}</style><script>{}</script></head>
<body><main>{}</main><div id="tip"></div><script>{}</script></body></html>
)",
      html::escape(title), html::style(), html::theme_script, body, html::script);
}

}  // namespace slip
