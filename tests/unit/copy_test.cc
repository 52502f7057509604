#include "slipstream/base/copy.h"

#include <gtest/gtest.h>

#include <cstddef>
#include <numeric>
#include <vector>

namespace slip {
namespace {

constexpr std::size_t margin = 64;  // around what is written

TEST(CopyBytes, WritesWhatItReadsAndNothingElseAtAnyLengthAndAlignment) {
  std::vector<unsigned char> from(10'000);
  std::iota(from.begin(), from.end(), 0);
  for (const std::size_t base : {0u, 1u, 63u, 2040u, 4100u, 8200u}) {
    for (std::size_t bytes = base; bytes < base + 70; bytes += 1 + bytes % 3) {
      for (std::size_t shift = 0; shift < 35; shift += 5) {
        std::vector<unsigned char> to(bytes + shift + 2 * margin, 0xee);
        std::vector<unsigned char> expected = to;
        std::copy_n(from.begin() + 7, bytes, expected.begin() + margin + shift);
        copy_bytes(to.data() + margin + shift, from.data() + 7, bytes);
        ASSERT_EQ(to, expected) << bytes << " bytes, shifted by " << shift;
      }
    }
  }
}

TEST(CopyBytes, OntoItselfOrOfNothingDoesNothing) {
  std::vector<unsigned char> bytes(5000, 3);
  copy_bytes(bytes.data(), bytes.data(), bytes.size());
  EXPECT_EQ(bytes, std::vector<unsigned char>(5000, 3));
  copy_bytes(nullptr, nullptr, 0);
}

}  // namespace
}  // namespace slip
