#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

namespace slip {

/// The samples of each worker, by index; every sample is in exactly one share.
using Shares = std::vector<std::vector<std::uint32_t>>;

/// Deals the samples with these `labels` (0..9) to `workers`, as `--partition` says:
///   iid              shuffled, shares equal to within one sample
///   dirichlet=ALPHA  each class is split in proportions drawn from a symmetric Dirichlet
///                    distribution, so that with a small ALPHA workers have few classes; shares
///                    are then made equal to within one sample
///   shards=N         sorted by class, cut into N x workers pieces, N random pieces to each
/// A pure function of its arguments. Throws Error(invalid_argument): unknown partition or value, or
/// fewer samples than workers (shards) to give them to.
Shares partition(std::span<const std::uint8_t> labels, std::string_view name, int workers,
                 std::uint64_t seed);

/// The same for ratings, of each of which `users` says whose it is:
///   iid   as above
///   user  users in random order are dealt in equal numbers (to within one), with all their ratings
Shares partition_ratings(std::span<const std::uint32_t> users, std::string_view name, int workers,
                         std::uint64_t seed);

}  // namespace slip
