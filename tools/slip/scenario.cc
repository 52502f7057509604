#include "slipstream/tools/slip/scenario.h"

#include <fmt/format.h>

#include <algorithm>
#include <functional>
#include <string_view>

#include "slipstream/tools/slip/toml_file.h"
#include "slipstream/trainer/metric.h"

namespace slip::cli {
namespace {

const std::vector<std::string> scenario_keys = {"title", "text",  "baseline", "run",
                                                "sweep", "short", "expect"};

const Sweep* find(const std::vector<Sweep>& sweeps, std::string_view name) {
  const auto at = std::find_if(sweeps.begin(), sweeps.end(),
                               [&](const Sweep& sweep) { return sweep.name == name; });
  return at == sweeps.end() ? nullptr : &*at;
}

// The sweep of this name, a new one if there is none.
Sweep& add(std::vector<Sweep>& sweeps, const std::string& name) {
  for (Sweep& sweep : sweeps) {
    if (sweep.name == name) return sweep;
  }
  return sweeps.emplace_back(Sweep{name, {}});
}

bool has(const Sweep& sweep, std::string_view value) {
  return std::any_of(sweep.values.begin(), sweep.values.end(),
                     [&](const Sweep::Value& v) { return v.text == value; });
}

std::string trimmed(const std::string& text) {
  const std::size_t first = std::min(text.find_first_not_of(" \n"), text.size());
  return text.substr(first, text.find_last_not_of(" \n") + 1 - first);
}

// "hop.backup=1 max_gap=3" as its items.
template <class Visit>
void for_each_item(const std::string& set, Visit&& visit) {
  for (std::size_t at = 0; at < set.size();) {
    const std::size_t end = std::min(set.find(' ', at), set.size());
    const std::string item = set.substr(at, end - at);
    const std::size_t equals = std::min(item.find('='), item.size());
    if (!item.empty())
      visit(item.substr(0, equals), item.substr(std::min(equals + 1, item.size())));
    at = end + 1;
  }
}

// What `setting` gives the swept option, if anything.
std::optional<std::string> value_for(const Sweep& sweep, const Setting& setting) {
  if (setting.name == sweep.name) return setting.text;
  if (setting.name != "set") return {};
  std::optional<std::string> value;
  for_each_item(setting.text, [&](const std::string& key, const std::string& text) {
    // A key without a protocol's name is for all of them.
    if (sweep.name == key || sweep.name.ends_with("." + key)) value = text;
  });
  return value;
}

class ScenarioReader {
 public:
  ScenarioReader(const TomlFile& file, const Options& options)
      : file_(file), top_options_(options), run_options_(describe_run(config_)) {
    top_options_.add("protocol", config_.protocol, "");
  }

  Scenario read(bool short_form) {
    const toml::table& root = file_.root();
    Scenario scenario;
    scenario.title = string(root, "title");
    scenario.text = trimmed(string(root, "text"));
    scenario.baseline = string(root, "baseline");
    scenario.settings = file_.settings(root, top_options_, scenario_keys);
    for_each(root, "run", [&](const toml::table& run) { scenario.runs.push_back(read_run(run)); });
    refuse_double_names(scenario.runs);
    refuse_protocols(scenario);
    if (const auto* sweep = table(root, "sweep")) scenario.sweeps = read_sweeps(*sweep);
    known_ = scenario.sweeps;
    read_short(root, short_form, scenario);
    for (const Scenario::Run& run : scenario.runs) refuse_swept(run);
    for_each(root, "expect",
             [&](const toml::table& expect) { read_expectation(expect, scenario.expectations); });
    return scenario;
  }

 private:
  const toml::table* table(const toml::table& in, const char* name) const {
    const toml::node* node = in.get(name);
    if (node && !node->is_table()) {
      file_.fail(*node, fmt::format("{} is a table, [{}]", name, name));
    }
    return node ? node->as_table() : nullptr;
  }

  void for_each(const toml::table& in, const char* name,
                const std::function<void(const toml::table&)>& visit) const {
    const toml::node* node = in.get(name);
    if (!node) return;
    const toml::array* items = node->as_array();
    if (!items || !items->is_homogeneous(toml::node_type::table)) {
      file_.fail(*node, fmt::format("{} is a list of tables, [[{}]]", name, name));
    }
    for (const toml::node& item : *items) visit(*item.as_table());
  }

  std::string string(const toml::table& in, const char* name, bool needed = false) const {
    const toml::node* node = in.get(name);
    if (!node) {
      if (needed) file_.fail(in, fmt::format("{} is missing", name));
      return {};
    }
    if (!node->is_string() || (needed && node->as_string()->get().empty())) {
      file_.fail(*node, fmt::format("{} is a text, in quotes", name));
    }
    return node->as_string()->get();
  }

  std::optional<double> number(const toml::node* node, std::string_view name) const {
    if (!node) return {};
    if (!node->is_number()) file_.fail(*node, fmt::format("{} is a number", name));
    return node->value<double>();
  }

  void check_keys(const toml::table& in, std::string_view of,
                  const std::vector<std::string>& allowed) const {
    for (const auto& [key, node] : in) {
      const std::string name(key.str());
      if (std::find(allowed.begin(), allowed.end(), name) != allowed.end()) continue;
      file_.fail(node, unknown_name(fmt::format("key of {}", of), name, allowed));
    }
  }

  Scenario::Run read_run(const toml::table& run) const {
    const std::string name = string(run, "name", true);
    if (name == "all") file_.fail(*run.get("name"), "'all' is what [[expect]] calls all runs");
    return {name, file_.place(run), file_.settings(run, run_options_, {"name"})};
  }

  static void refuse_double_names(const std::vector<Scenario::Run>& runs) {
    for (std::size_t i = 0; i < runs.size(); ++i) {
      for (std::size_t j = 0; j < i; ++j) {
        if (runs[i].name != runs[j].name) continue;
        refuse(runs[i].source, fmt::format("a run is called '{}' already", runs[i].name));
      }
    }
  }

  // One of the two says which runs there are.
  static void refuse_protocols(const Scenario& scenario) {
    for (const Setting& setting : scenario.settings) {
      if (setting.name == "protocols" && !scenario.runs.empty()) {
        refuse(setting.shown_as, "excludes [[run]], whose tables name their protocol");
      }
      if (setting.name == "protocol" && scenario.runs.empty()) {
        refuse(setting.shown_as, "needs [[run]]; without such tables, protocols says what is run");
      }
    }
  }

  // A run that goes over a sweep would be the same all along it.
  void refuse_swept(const Scenario::Run& run) const {
    for (const Setting& setting : run.settings) {
      for (const Sweep& sweep : known_) {
        if (value_for(sweep, setting)) refuse(setting.shown_as, "is swept; a run cannot set it");
      }
    }
  }

  [[noreturn]] static void refuse(const std::string& place, const std::string& reason) {
    throw Error(Code::invalid_argument, fmt::format("{}: {}", place, reason));
  }

  std::vector<Sweep> read_sweeps(const toml::table& sweeps) const {
    std::vector<std::pair<toml::source_position, Sweep>> found;
    read_sweeps(sweeps, Scope{"", true}, found);
    // The parser sorts keys by name.
    std::stable_sort(found.begin(), found.end(),
                     [](const auto& a, const auto& b) { return a.first < b.first; });
    std::vector<Sweep> result;
    for (auto& [position, sweep] : found) result.push_back(std::move(sweep));
    return result;
  }

  // Where a sweep stands: "hop." under [sweep.hop], and "" under [sweep.set], but there are no
  // options of `slip train`, which are at the top.
  struct Scope {
    std::string prefix;
    bool top;
  };

  void read_sweeps(const toml::table& sweeps, const Scope& scope,
                   std::vector<std::pair<toml::source_position, Sweep>>& found) const {
    for (const auto& [key, node] : sweeps) {
      std::string name = scope.prefix + std::string(key.str());
      if (const toml::table* inner = node.as_table()) {
        read_sweeps(*inner, Scope{name == "set" ? "" : name + ".", false}, found);
        continue;
      }
      const bool is_option = scope.top && run_options_.find(name) && name != "set";
      if (scope.top && !is_option) {
        file_.fail(node, unknown_name("option", name, run_options_.names()));
      }
      const toml::array* values = node.as_array();
      if (!values || values->empty()) {
        file_.fail(node, fmt::format("{}: a sweep is an array of values, [A, B]", name));
      }
      Sweep sweep{name, {}};
      for (const toml::node& value : *values) {
        const std::string text = file_.text(value, name);
        if (has(sweep, text)) file_.fail(value, fmt::format("{}: '{}' comes twice", name, text));
        const std::string shown_as = fmt::format("{}: {}", file_.place(value), name);
        sweep.values.push_back({text, is_option ? Setting{name, text, shown_as}
                                                : Setting{"set", name + "=" + text, shown_as}});
      }
      found.emplace_back(node.source().begin, std::move(sweep));
    }
  }

  void read_short(const toml::table& root, bool wanted, Scenario& scenario) {
    const toml::table* form = table(root, "short");
    if (!form) {
      if (wanted) refuse(file_.path(), "--short needs the table [short], what the short form has");
      return;
    }
    const std::vector<Setting> settings = file_.settings(*form, top_options_, {"sweep"});
    std::vector<Sweep> sweeps;
    if (const auto* sweep = table(*form, "sweep")) sweeps = read_sweeps(*sweep);
    for (const Sweep& sweep : sweeps) {
      Sweep& known = add(known_, sweep.name);
      known.values.insert(known.values.end(), sweep.values.begin(), sweep.values.end());
      if (wanted) add(scenario.sweeps, sweep.name).values = sweep.values;
    }
    if (!wanted) return;
    fix(scenario.sweeps, settings);
    scenario.settings.insert(scenario.settings.end(), settings.begin(), settings.end());
  }

  void read_expectation(const toml::table& in, std::vector<Expectation>& expectations) const {
    check_keys(
        in, "expect",
        {"metric", "run", "where", "over", "minus", "value", "tolerance", "at_least", "at_most"});
    Expectation e;
    e.source = file_.place(in);
    e.metric = string(in, "metric", true);
    if (!find_metric(e.metric)) {
      file_.fail(*in.get("metric"), unknown_name("metric", e.metric, metric_names()));
    }
    e.run = string(in, "run", true);
    if (const auto* where = table(in, "where")) e.where = read_place(*where);
    read_other(in, e);
    read_bounds(in, e);
    const toml::table* values = in.get("value") ? in.get("value")->as_table() : nullptr;
    if (!values) {
      expectations.push_back(std::move(e));
      return;
    }
    const std::string sweep = sweep_of(*values);
    for (const auto& [key, node] : *values) {
      Expectation one = e;
      one.where.emplace_back(sweep, key.str());
      one.value = number(&node, key.str());
      expectations.push_back(std::move(one));
    }
  }

  void read_other(const toml::table& in, Expectation& e) const {
    const toml::node* over = in.get("over");
    const toml::node* minus = in.get("minus");
    if (over && minus) file_.fail(*minus, "minus and over exclude each other");
    const toml::node* other = over ? over : minus;
    if (!other) return;
    e.relation = over ? Expectation::Relation::over : Expectation::Relation::minus;
    if (other->is_string()) {
      e.other_run = other->as_string()->get();
    } else if (const toml::table* place = other->as_table()) {
      e.other_run = string(*place, "run");
      e.other_where = read_place(*place, "run");
    } else {
      file_.fail(*other, fmt::format("{} is a run, in quotes, or a place of the sweep, such as "
                                     "{{ transport = \"sim\" }}",
                                     over ? "over" : "minus"));
    }
  }

  void read_bounds(const toml::table& in, Expectation& e) const {
    e.at_least = number(in.get("at_least"), "at_least");
    e.at_most = number(in.get("at_most"), "at_most");
    const toml::node* value = in.get("value");
    const toml::node* tolerance = in.get("tolerance");
    if (value && !value->is_table()) e.value = number(value, "value");
    if (!value != !tolerance) {
      file_.fail(in, "value and tolerance, its share that may be missing or too much, go together");
    }
    if (!value == !(e.at_least || e.at_most)) {
      file_.fail(in, "what is expected is at_least, at_most or both, or value and tolerance");
    }
    e.tolerance = number(tolerance, "tolerance").value_or(0);
  }

  // { graph = "ring", hop.max_gap = 3 }
  Place read_place(const toml::table& in, std::string_view not_here = {}) const {
    Place place;
    read_place(in, "", not_here, place);
    return place;
  }

  void read_place(const toml::table& in, const std::string& scope, std::string_view not_here,
                  Place& place) const {
    for (const auto& [key, node] : in) {
      const std::string name = scope + std::string(key.str());
      if (name == not_here) continue;
      const Sweep* sweep = name == "seed" ? nullptr : cli::find(known_, name);
      if (node.is_table() && !sweep) {
        read_place(*node.as_table(), name + ".", {}, place);
        continue;
      }
      if (!sweep) file_.fail(node, unknown_name("swept option", name, swept_options()));
      const std::string text = file_.text(node, name);
      if (!has(*sweep, text)) file_.fail(node, unknown_name(name, text, texts(*sweep)));
      place.emplace_back(name, text);
    }
  }

  // The swept option whose values are the keys of `values`.
  std::string sweep_of(const toml::table& values) const {
    for (const Sweep& sweep : known_) {
      const bool all = std::all_of(values.begin(), values.end(), [&](const auto& item) {
        return has(sweep, std::string_view(item.first.str()));
      });
      if (all && !values.empty() && sweep.name != "seed") return sweep.name;
    }
    file_.fail(values, "value is a number, or a table with a number for each value of one sweep");
  }

  std::vector<std::string> swept_options() const {
    std::vector<std::string> names;
    for (const Sweep& sweep : known_) {
      if (sweep.name != "seed") names.push_back(sweep.name);
    }
    return names;
  }

  static std::vector<std::string> texts(const Sweep& sweep) {
    std::vector<std::string> texts;
    for (const Sweep::Value& value : sweep.values) texts.push_back(value.text);
    return texts;
  }

  const TomlFile& file_;
  TrainConfig config_;  // what the options are bound to; its values do not matter
  Options top_options_;
  Options run_options_;
  std::vector<Sweep> known_;  // with the values of both forms
};

}  // namespace

Options describe_run(TrainConfig& config) {
  Options options = describe(config);
  options.remove({"rendezvous", "rank", "report", "trace", "html", "save", "resume",
                  "record-parameters", "dry-run"});
  return options;
}

Scenario read_scenario(const std::string& path, const Options& options, bool short_form) {
  const TomlFile file(path);
  return ScenarioReader(file, options).read(short_form);
}

void fix(std::vector<Sweep>& sweeps, const std::vector<Setting>& settings) {
  for (Sweep& sweep : sweeps) {
    for (const Setting& setting : settings) {
      if (const auto text = value_for(sweep, setting)) sweep.values = {{*text, setting}};
    }
  }
}

}  // namespace slip::cli
