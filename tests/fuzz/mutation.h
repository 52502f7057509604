#pragma once

#include <functional>
#include <string>
#include <string_view>
#include <vector>

namespace slip::testing {

/// `bytes` with a few faults that follow from `seed`: bits flipped, numbers that are extreme, parts
/// that are gone, repeated, or from elsewhere, and an end that comes too early or too late.
std::string mutate(std::string_view bytes, std::uint64_t seed);

/// Gives a reader many mutations of what it should read, and that itself: it takes each or throws
/// an Error of one line, and never anything else. SLIP_TEST_SEEDS sets how many, SLIP_TEST_SEED the
/// first.
void read_mutations(const std::vector<std::string>& good,
                    const std::function<void(const std::string&)>& read);

}  // namespace slip::testing
