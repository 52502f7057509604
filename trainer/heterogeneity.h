#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "slipstream/base/time.h"
#include "slipstream/base/word.h"
#include "slipstream/transport/sim/network.h"

namespace slip {

/// The options as users write them; empty: not given.
struct HeterogeneityOptions {
  std::string compute;            // "10ms" or "10ms,jitter=0.05"
  std::vector<std::string> slow;  // "rank=3,x=4" or "random,x=6,p=1/n"
  std::string drop;               // "p=0.01"
  int workers = 1;
  std::uint64_t seed = 1;
};

/// Injected slowness and loss. Every draw is a pure function of (seed, rank, iteration), so every
/// protocol, transport and clock meets the same slowdowns. Immutable; any thread may ask.
class Heterogeneity {
 public:
  Heterogeneity() = default;

  /// Throws Error(invalid_argument), one line that names the option and what is allowed.
  explicit Heterogeneity(const HeterogeneityOptions& options);

  /// `--compute` was given: iterations have a modelled length.
  bool has_compute() const { return compute_ > Duration::zero(); }

  /// How long `iteration` of `rank` computes: T x (1 + uniform(-jitter, jitter)) x every factor of
  /// `--slow` that hits. Zero without `--compute`.
  Duration compute_time(int rank, Iteration iteration) const;

  /// `--drop` was given.
  bool drops_any() const { return drop_ > 0; }
  /// Whether `receiver` loses this message of `sender`; `message` tells apart what one sender sends
  /// to one receiver in one iteration (DivShare's fragments).
  bool drops(int receiver, int sender, Iteration iteration, std::uint64_t message = 0) const;

 private:
  struct Slow {
    std::optional<int> rank;  // empty: any rank, with the probability
    double factor = 1;
    double probability = 1;
  };

  static Slow parse_slow(const std::string& text, int workers);

  Duration compute_{0};
  double jitter_ = 0;
  std::vector<Slow> slow_;
  double drop_ = 0;
  std::uint64_t seed_ = 1;
};

/// `--link` and `--inner-link`: "rate=60mbit,latency=1ms", either may be left out. `option` names
/// the option in errors. Throws Error(invalid_argument).
sim::Link parse_link(const std::string& text, std::string_view option);

/// `--links`: a file of lines `from to rate=60mbit,latency=1ms`, each the link from one host to
/// another in that direction, or within one where both are the same; `#` begins a comment. Throws
/// Error(invalid_argument) that names the file and the line.
std::vector<sim::HostLink> read_links(const std::string& path, int hosts);

/// All links of one worker are `factor` times slower.
struct SlowLink {
  int rank = 0;
  double factor = 1;
};

/// `--slow-link`: "rank=3,x=5", or "count=30,x=5" for so many workers, spread evenly over the
/// ranks. Throws Error(invalid_argument).
std::vector<SlowLink> parse_slow_link(const std::string& text, int workers);

}  // namespace slip
