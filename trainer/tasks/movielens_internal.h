#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <vector>

namespace slip {

/// Who has rated what, and how. Users and items are numbered from 0 on in the order in which the
/// files name them, so that no number in a file says how many there are.
struct RatingSet {
  std::vector<std::uint32_t> users;
  std::vector<std::uint32_t> items;
  std::vector<float> ratings;

  std::size_t size() const { return ratings.size(); }
};

struct RatingData {
  std::uint32_t users = 0;  // those with ratings to learn from come first
  std::uint32_t items = 0;
  RatingSet train;
  RatingSet test;
};

/// A split of MovieLens 100K: SPLIT.base and SPLIT.test (each plain, `.gz` or `.xz`), lines of
/// `user item rating timestamp` with tabs between them. `path` is FOLDER/SPLIT, or a folder, whose
/// split u1 it is then. Memory grows with what the files hold, never with a number in them. Throws
/// Error: not_found, io or bad_data, one line with the file, its line and what is wrong.
RatingData read_movielens(const std::filesystem::path& path);

}  // namespace slip
