#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace slip::relaysum {

struct ProblemOptions {
  int workers = 6;
  double zeta2 = 0.01;  // mean of |gradient|^2 of the workers at the common optimum
  double r0 = 1;        // of the optimum from the start at 0
  std::uint32_t seed = 0;
};

/// The random quadratics of RelaySum's published notebooks (Vogels et al., NeurIPS'21), drawn as
/// they draw them, so that their steps can be compared one by one: f_i(x) = |A_i x - b_i|^2 in ten
/// dimensions, the singular values of A_i evenly spaced from 0.5 to 1. In float64.
class Problem {
 public:
  static constexpr std::size_t dimension = 10;
  using Vector = std::vector<double>;

  explicit Problem(const ProblemOptions& options);

  /// Of f_i / 2.
  void gradient(int worker, std::span<const double> x, std::span<double> out) const;
  /// f(x) less its least, f the mean of all f_i.
  double error(std::span<const double> x) const;

 private:
  double value(std::span<const double> x) const;
  Vector optimum() const;
  double zeta2(std::span<const double> at) const;

  int workers_;
  Vector a_;  // the A_i below each other, row by row
  Vector b_;
  double least_;
};

}  // namespace slip::relaysum
