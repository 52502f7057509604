#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <optional>
#include <span>
#include <utility>

#include "slipstream/base/error.h"
#include "slipstream/base/random.h"
#include "slipstream/trainer/quantity.h"
#include "slipstream/trainer/tasks/libsvm_internal.h"
#include "slipstream/trainer/tasks/text_lines_internal.h"

namespace slip {
namespace {

namespace fs = std::filesystem;

constexpr std::uint32_t largest_index = 100'000'000;     // parameters are dense
constexpr std::size_t most_rows = std::size_t{1} << 31;  // shares count them in 32 bits
constexpr std::size_t held_out = 5;                      // one row of so many
constexpr std::uint64_t hold_out_seed = 1;

/// The rows of one file; labels as they stand there.
struct RawSet {
  SparseSet set;
  std::vector<double> labels;
  std::uint32_t features = 0;
};

double label_of(std::string_view word, const Lines& lines) {
  if (word.empty()) lines.refuse("no label; a line is LABEL INDEX:VALUE ...");
  const std::optional<double> label = number(word);
  if (!label) lines.refuse(fmt::format("{} is no label; allowed are finite numbers", quoted(word)));
  return *label;
}

/// INDEX:VALUE, where the indices up to `last` are behind. Returns the index.
std::uint32_t add_entry(std::string_view word, std::uint32_t last, const Lines& lines,
                        SparseSet& set) {
  const std::size_t colon = word.find(':');
  const std::string_view text = word.substr(0, colon);
  std::uint64_t index = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), index);
  if (colon == word.npos || text.empty() || end != text.data() + text.size()) {
    lines.refuse(fmt::format("{} is not INDEX:VALUE", quoted(word)));
  }
  if (error != std::errc() || index < 1 || index > largest_index) {
    lines.refuse(fmt::format("index {}; allowed are 1 to {}", quoted(text), largest_index));
  }
  if (index <= last) {
    lines.refuse(fmt::format("index {} after {}; indices ascend within a line", index, last));
  }
  const std::optional<double> value = number(word.substr(colon + 1));
  if (!value || !std::isfinite(static_cast<float>(*value))) {
    lines.refuse(fmt::format("{} has no finite number as its value", quoted(word)));
  }
  set.columns.push_back(static_cast<std::uint32_t>(index - 1));
  set.values.push_back(static_cast<float>(*value));
  return static_cast<std::uint32_t>(index);
}

/// `classes`: the distinct labels so far, of which there are two at most.
RawSet read_rows(const fs::path& path, std::vector<double>& classes) {
  const bool all_known = !classes.empty();
  RawSet raw;
  Lines lines(path);
  for (std::string_view line; lines.next(line);) {
    const double label = label_of(take_word(line), lines);
    if (std::ranges::find(classes, label) == classes.end()) {
      if (all_known || classes.size() == 2) {
        lines.refuse(
            fmt::format("label {} beside {}; allowed are two classes, the same in all "
                        "files",
                        label, fmt::join(classes, " and ")));
      }
      classes.push_back(label);
    }
    std::uint32_t last = 0;
    for (std::string_view word; !(word = take_word(line)).empty();) {
      last = add_entry(word, last, lines, raw.set);
    }
    if (raw.labels.size() == most_rows) {
      lines.refuse(fmt::format("more than {} rows, the most that are read", most_rows));
    }
    raw.features = std::max(raw.features, last);
    raw.labels.push_back(label);
    raw.set.begin.push_back(raw.set.columns.size());
  }
  if (raw.labels.empty()) refuse_file(path, "it is empty; a line is LABEL INDEX:VALUE ...");
  if (classes.size() < 2) {
    refuse_file(path, fmt::format("all of its {} labels are {}; allowed are two classes",
                                  raw.labels.size(), classes.front()));
  }
  return raw;
}

SparseSet labelled(RawSet raw, double positive) {
  for (const double label : raw.labels) raw.set.labels.push_back(label == positive ? 1 : 0);
  return std::move(raw.set);
}

/// The rows of `set` with these numbers.
SparseSet rows_of(const SparseSet& set, std::span<const std::size_t> rows) {
  SparseSet part;
  for (const std::size_t row : rows) {
    for (std::size_t i = set.begin[row]; i < set.begin[row + 1]; ++i) {
      part.columns.push_back(set.columns[i]);
      part.values.push_back(set.values[i]);
    }
    part.begin.push_back(part.columns.size());
    part.labels.push_back(set.labels[row]);
  }
  return part;
}

bool is_file(const fs::path& path) {
  std::error_code ignored;
  return fs::is_regular_file(path, ignored);
}

/// The test file beside `train` by the names that are usual; empty: there is none.
fs::path test_beside(const fs::path& train) {
  std::string name = train.string();
  for (const std::string_view packed : {".gz", ".xz"}) {
    if (name.ends_with(packed)) name.resize(name.size() - packed.size());
  }
  std::vector<std::string> names{name + ".t"};
  constexpr std::string_view trn = ".trn";
  if (name.ends_with(trn)) names.push_back(name.substr(0, name.size() - trn.size()) + ".tst");
  for (const std::string& candidate : names) {
    for (const char* ending : {"", ".gz", ".xz"}) {
      if (is_file(candidate + ending)) return candidate + ending;
    }
  }
  return {};
}

}  // namespace

LibsvmFiles libsvm_files(std::string_view settings) {
  constexpr std::string_view owner = "--task libsvm";
  if (!settings.starts_with("train=") && !settings.starts_with("test=")) {
    if (settings.empty()) {
      throw Error(Code::invalid_argument,
                  fmt::format("{} names no file; allowed are libsvm:FILE and "
                              "libsvm:train=FILE,test=FILE",
                              owner));
    }
    return {settings, test_beside(settings)};
  }
  LibsvmFiles files;
  for (const auto& [key, value] : parse_fields(settings)) {
    if (key != "train" && key != "test") {
      throw Error(Code::invalid_argument,
                  fmt::format("{} has no setting '{}'; allowed are train, test", owner, key));
    }
    (key == "train" ? files.train : files.test) = value;
  }
  if (files.train.empty() || files.test.empty()) {
    throw Error(
        Code::invalid_argument,
        fmt::format("{}: '{}' names one file; allowed is train=FILE,test=FILE", owner, settings));
  }
  return files;
}

SparseData read_libsvm(const LibsvmFiles& files) {
  std::vector<double> classes;
  RawSet train = read_rows(files.train, classes);
  const double positive = std::ranges::max(classes);
  SparseData data;
  data.features = train.features;
  data.train = labelled(std::move(train), positive);
  if (!files.test.empty()) {
    RawSet test = read_rows(files.test, classes);
    data.features = std::max(data.features, test.features);
    data.test = labelled(std::move(test), positive);
    return data;
  }
  const std::size_t count = data.train.size();
  if (count < held_out) {
    refuse_file(files.train, fmt::format("a test set cannot be taken out of {} rows; name one with "
                                         "--task libsvm:train=FILE,test=FILE",
                                         count));
  }
  std::vector<std::size_t> order(count);
  for (std::size_t row = 0; row < count; ++row) order[row] = row;
  Random random(hold_out_seed);
  shuffle(order, random);
  const std::span<const std::size_t> rows(order);
  data.test = rows_of(data.train, rows.first(count / held_out));
  data.train = rows_of(data.train, rows.subspan(count / held_out));
  return data;
}

}  // namespace slip
