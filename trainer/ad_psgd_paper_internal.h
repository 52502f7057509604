#pragma once

#include <cstddef>
#include <memory>

#include "slipstream/trainer/ad_psgd.h"

#pragma GCC visibility push(hidden)

namespace slip {

/// AD-PSGD as DivShare (WWW'25) was compared with: every round a worker sends its model to
/// `fanout` / 2 random others, who send back theirs, and takes the mean of all models that have
/// come since the last round. Pairs do not average with each other, and whatever cannot be sent in
/// time queues up.
std::unique_ptr<Protocol> make_paper_ad_psgd(const Run& run, const AdPsgd& options);
std::size_t paper_ad_psgd_memory(const RunShape& shape);

}  // namespace slip

#pragma GCC visibility pop
