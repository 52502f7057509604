#include "slipstream/tools/slip/result_page.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <iterator>
#include <string_view>
#include <utility>

#include "slipstream/trainer/chart.h"

namespace slip::cli {
namespace {

// "ring-based, rank=3,x=4" -> "ring-based-rank-3-x-4"
std::string slug(std::string_view text) {
  std::string name;
  for (const char c : text) {
    const auto letter = static_cast<unsigned char>(c);
    if (std::isalnum(letter)) {
      name += static_cast<char>(std::tolower(letter));
    } else if (!name.empty() && name.back() != '-') {
      name += '-';
    }
  }
  return name.substr(0, name.find_last_not_of('-') + 1);
}

class PageWriter {
 public:
  PageWriter(std::string name, const Findings& findings)
      : name_(std::move(name)), findings_(findings), grid_(findings.grid()) {}

  std::vector<PageFile> write(const PageText& text, std::span<const Verdict> verdicts) && {
    add("# {}\n\n", text.title);
    if (!text.text.empty()) add("{}\n\n", text.text);
    add_facts(text.command);
    const std::string_view bars = find_metric("seconds_per_iteration")->title;
    for (const TitledTable& table : tables(findings_)) {
      add("## {}\n\n{}\n", table.title.empty() ? "Results" : table.title, to_markdown(table.table));
      if (table.title.empty() || table.title == bars) add_bars();
    }
    if (findings_.learns()) add_curves();
    if (!verdicts.empty()) {
      add("## Expected and seen\n\n{}\n", to_markdown(to_table(verdicts)));
    }
    page_.pop_back();  // the last blank line
    std::vector<PageFile> files = {{name_ + ".md", std::move(page_)}};
    std::move(pictures_.begin(), pictures_.end(), std::back_inserter(files));
    return files;
  }

 private:
  template <class... Values>
  void add(fmt::format_string<Values...> format, Values&&... values) {
    page_ += fmt::format(format, std::forward<Values>(values)...);
  }

  void add_picture(const std::string& title, const std::string& svg) {
    if (svg.empty()) return;
    pictures_.push_back({fmt::format("{}-{}.svg", name_, slug(title)), svg});
    add("![{}]({})\n\n", title, pictures_.back().name);
  }

  void add_facts(const std::string& command) {
    add("Made by `{}`.", command);
    const auto finished = static_cast<std::size_t>(
        std::count_if(findings_.reports().begin(), findings_.reports().end(),
                      [](const auto& report) { return report.has_value(); }));
    if (finished < grid_.cases.size()) {
      add(" Only {} of {} runs have finished.", finished, grid_.cases.size());
    }
    const bool is_virtual =
        std::all_of(findings_.reports().begin(), findings_.reports().end(),
                    [](const auto& report) { return !report || report->transport == "sim"; });
    if (is_virtual) add(" Seconds are virtual.");
    const std::size_t seeds = grid_.cases.size() / (grid_.runs.size() * grid_.places.size());
    if (seeds > 1) add(" Figures are means over {} seeds, ± the standard deviation.", seeds);
    add("\n\n");
  }

  void add_bars() {
    const Metric& metric = *find_metric("seconds_per_iteration");
    BarChart chart{std::string(metric.title), {}, {}};
    for (std::size_t place = 0; place < grid_.places.size(); ++place) {
      chart.series.push_back(grid_.label(place));
    }
    for (std::size_t run = 0; run < grid_.runs.size(); ++run) {
      BarChart::Group group{grid_.runs[run], {}};
      for (std::size_t place = 0; place < grid_.places.size(); ++place) {
        const auto seen = estimate(findings_.of(run, place), metric);
        group.values.push_back(seen ? std::optional(seen->mean) : std::nullopt);
      }
      chart.groups.push_back(std::move(group));
    }
    add_picture(chart.title, bar_chart_svg(chart));
  }

  void add_curves() {
    const std::size_t before = page_.size();
    for (const auto& [figure, title] : {std::pair("accuracy", "Accuracy"), {"loss", "Loss"}}) {
      for (std::size_t place = 0; place < grid_.places.size(); ++place) {
        const std::string label = grid_.label(place);
        const std::string full = label.empty() ? title : fmt::format("{}, {}", title, label);
        add_picture(full, curve_svg(full, findings_.at(place), figure));
      }
    }
    if (page_.size() > before) page_.insert(before, "## Against time\n\n");
  }

  const std::string name_;
  const Findings& findings_;
  const Grid& grid_;
  std::string page_;
  std::vector<PageFile> pictures_;
};

}  // namespace

std::vector<PageFile> result_page(const std::string& name, const PageText& text,
                                  const Findings& findings, std::span<const Verdict> verdicts) {
  return PageWriter(name, findings).write(text, verdicts);
}

}  // namespace slip::cli
