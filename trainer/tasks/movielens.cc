#include <fmt/format.h>

#include <charconv>
#include <string>
#include <string_view>
#include <unordered_map>

#include "slipstream/trainer/tasks/movielens_internal.h"
#include "slipstream/trainer/tasks/text_lines_internal.h"

namespace slip {
namespace {

namespace fs = std::filesystem;

constexpr std::size_t most_ratings = 100'000'000;  // shares count them in 32 bits
constexpr double highest_rating = 10;

/// Numbers in the order in which they are first met.
class Numbering {
 public:
  std::uint32_t of(std::uint64_t number) {
    return known_.try_emplace(number, static_cast<std::uint32_t>(known_.size())).first->second;
  }
  std::uint32_t size() const { return static_cast<std::uint32_t>(known_.size()); }

 private:
  std::unordered_map<std::uint64_t, std::uint32_t> known_;
};

std::uint64_t id(std::string_view word, const char* what, const Lines& lines) {
  std::uint64_t value = 0;
  const auto [end, error] = std::from_chars(word.data(), word.data() + word.size(), value);
  if (word.empty() || error != std::errc() || end != word.data() + word.size()) {
    lines.refuse(fmt::format("{} is no number of {}; a line is 'user item rating timestamp'",
                             quoted(word), what));
  }
  return value;
}

RatingSet read_set(const fs::path& path, Numbering& users, Numbering& items) {
  RatingSet set;
  Lines lines(path);
  for (std::string_view line; lines.next(line);) {
    const std::uint32_t user = users.of(id(take_word(line), "a user", lines));
    const std::uint32_t item = items.of(id(take_word(line), "an item", lines));
    const std::string_view word = take_word(line);
    const auto rating = number(word);
    if (!rating || *rating < 0 || *rating > highest_rating) {
      lines.refuse(fmt::format("{} is no rating; allowed are numbers from 0 to {}", quoted(word),
                               highest_rating));
    }
    if (set.size() == most_ratings) {
      lines.refuse(fmt::format("more than {} ratings, the most that are read", most_ratings));
    }
    set.users.push_back(user);
    set.items.push_back(item);
    set.ratings.push_back(static_cast<float>(*rating));
  }
  if (set.size() == 0) refuse_file(path, "it holds no ratings");
  return set;
}

}  // namespace

RatingData read_movielens(const fs::path& path) {
  std::error_code ignored;
  const bool folder = fs::is_directory(path, ignored);
  const fs::path split = folder ? path / "u1" : path;
  const auto file = [&](const char* ending) {
    return find_packed(split.parent_path(), split.filename().string() + ending,
                       "a split of MovieLens, such as u1.base and u1.test");
  };
  Numbering users, items;
  RatingData data;
  data.train = read_set(file(".base"), users, items);
  data.test = read_set(file(".test"), users, items);
  data.users = users.size();
  data.items = items.size();
  return data;
}

}  // namespace slip
