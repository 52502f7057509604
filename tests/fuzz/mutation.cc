#include "mutation.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cstdint>

#include "conformance.h"
#include "slipstream/base/error.h"
#include "slipstream/base/random.h"

namespace slip::testing {
namespace {

constexpr std::size_t longest_part = 64;

/// What readers of numbers stumble over, as text.
constexpr std::array numbers = {"0",          "-1",   "4294967296", "18446744073709551616",
                                "2147483648", "1e99", "nan",        "0x10"};

/// A place in `bytes`, its end included.
std::size_t place(const std::string& bytes, Random& random) {
  return random.below(bytes.size() + 1);
}

std::string part_of(const std::string& bytes, Random& random) {
  const std::size_t begin = place(bytes, random);
  return bytes.substr(begin, random.below(longest_part));
}

void overwrite_number(std::string& bytes, Random& random) {
  const std::uint64_t near = random.below(3) - 1;  // 0, 1 or all ones
  const std::uint64_t value = random.below(2) != 0 ? near : near + (1ULL << random.below(64));
  const std::size_t width = 1ULL << random.below(4);
  const std::size_t begin = place(bytes, random);
  for (std::size_t i = 0; i < width && begin + i < bytes.size(); ++i) {
    bytes[begin + i] = static_cast<char>(value >> (8 * i));
  }
}

void replace_digits(std::string& bytes, Random& random) {
  const std::size_t begin = bytes.find_first_of("0123456789", place(bytes, random));
  if (begin == bytes.npos) return;
  const std::size_t end = std::min(bytes.find_first_not_of("0123456789", begin), bytes.size());
  bytes.replace(begin, end - begin, numbers[random.below(numbers.size())]);
}

void add_fault(std::string& bytes, Random& random) {
  switch (random.below(8)) {
    case 0:
    case 1:
      if (!bytes.empty()) {
        bytes[random.below(bytes.size())] ^= static_cast<char>(1 << random.below(8));
      }
      return;
    case 2:
      return overwrite_number(bytes, random);
    case 3:
      return replace_digits(bytes, random);
    case 4:
      bytes.erase(place(bytes, random), random.below(longest_part));
      return;
    case 5:
      bytes.insert(place(bytes, random), part_of(bytes, random));
      return;
    case 6:
      bytes.resize(place(bytes, random));
      return;
    default:
      for (std::size_t i = random.below(longest_part); i > 0; --i) {
        bytes += static_cast<char>(random());
      }
  }
}

}  // namespace

std::string mutate(std::string_view bytes, std::uint64_t seed) {
  Random random(seed);
  std::string result(bytes);
  for (std::uint64_t left = 1 + random.below(4); left > 0; --left) add_fault(result, random);
  return result;
}

void read_mutations(const std::vector<std::string>& good,
                    const std::function<void(const std::string&)>& read) {
  for (const std::string& bytes : good) read(bytes);
  for_seeds(2000, [&](std::uint64_t seed) {
    const std::string bytes = mutate(good[seed % good.size()], seed);
    try {
      read(bytes);
    } catch (const Error& error) {
      EXPECT_EQ(std::string_view(error.what()).find('\n'), std::string_view::npos) << error.what();
    }
  });
}

}  // namespace slip::testing
