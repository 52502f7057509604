#include "relaysum_problem.h"

#include <algorithm>
#include <cmath>
#include <numbers>
#include <numeric>
#include <random>

namespace slip::relaysum {
namespace {

using Vector = Problem::Vector;
constexpr std::size_t d = Problem::dimension;

double dot(const double* a, const double* b, std::size_t n) {
  return std::inner_product(a, a + n, b, 0.0);
}

/// Normal numbers in the order in which PyTorch has them on a CPU: two uniform ones make two, of a
/// long vector those eight apart, of a short one (of an even length) neighbours.
class Draws {
 public:
  explicit Draws(std::uint32_t seed) : bits_(seed) {}

  Vector normal(std::size_t n) {
    Vector x(n);
    if (n < block) {
      for (std::size_t i = 0; i < n; i += 2) {
        const double angle = uniform(), length = uniform();
        pair(length, angle, x[i], x[i + 1]);
      }
      return x;
    }
    for (double& value : x) value = uniform();
    for (std::size_t i = 0; i + block <= n; i += block) transform(&x[i]);
    if (n % block != 0) {
      for (std::size_t i = n - block; i < n; ++i) x[i] = uniform();
      transform(&x[n - block]);
    }
    return x;
  }

 private:
  static constexpr std::size_t block = 16;

  double uniform() {
    const std::uint64_t high = bits_();
    constexpr std::uint64_t mantissa = (std::uint64_t{1} << 53) - 1;
    return static_cast<double>((high << 32 | bits_()) & mantissa) * 0x1p-53;
  }

  static void pair(double length, double angle, double& first, double& second) {
    const double r = std::sqrt(-2 * std::log1p(-length)), phi = 2 * std::numbers::pi * angle;
    first = r * std::cos(phi);
    second = r * std::sin(phi);
  }

  static void transform(double* x) {
    for (std::size_t i = 0; i < block / 2; ++i)
      pair(x[i], x[i + block / 2], x[i], x[i + block / 2]);
  }

  std::mt19937 bits_;
};

/// Replaces the singular values of a by those that are wanted, the greatest by the first (one-sided
/// Jacobi: the columns of a V become orthogonal).
void set_singular_values(double* a, const Vector& values) {
  double av[d][d], v[d][d];  // their columns as rows
  for (std::size_t i = 0; i < d; ++i) {
    for (std::size_t j = 0; j < d; ++j) {
      av[j][i] = a[i * d + j];
      v[j][i] = i == j;
    }
  }
  for (double overlap = 1; overlap > 1e-14;) {
    overlap = 0;
    for (std::size_t p = 0; p < d; ++p) {
      for (std::size_t q = p + 1; q < d; ++q) {
        const double x = dot(av[p], av[p], d), y = dot(av[q], av[q], d), z = dot(av[p], av[q], d);
        overlap = std::max(overlap, std::abs(z) / std::sqrt(x * y));
        if (z == 0) continue;
        const double slope = (y - x) / (2 * z);
        const double t = std::copysign(1 / (std::abs(slope) + std::hypot(1, slope)), slope);
        const double c = 1 / std::hypot(1, t), s = c * t;
        for (double(*m)[d] : {av, v}) {
          for (std::size_t i = 0; i < d; ++i) {
            const double first = m[p][i];
            m[p][i] = c * first - s * m[q][i];
            m[q][i] = s * first + c * m[q][i];
          }
        }
      }
    }
  }
  std::size_t order[d];
  std::iota(order, order + d, 0);
  const auto length = [&](std::size_t j) { return std::sqrt(dot(av[j], av[j], d)); };
  std::sort(order, order + d, [&](std::size_t i, std::size_t j) { return length(i) > length(j); });
  std::fill(a, a + d * d, 0.0);
  for (std::size_t k = 0; k < d; ++k) {
    const std::size_t j = order[k];
    const double scale = values[k] / length(j);
    for (std::size_t row = 0; row < d; ++row) {
      for (std::size_t column = 0; column < d; ++column) {
        a[row * d + column] += scale * av[j][row] * v[j][column];
      }
    }
  }
}

/// x of m x = b for a symmetric positive definite m, by Cholesky.
Vector solve(Vector m, Vector b) {
  for (std::size_t i = 0; i < d; ++i) {
    for (std::size_t j = 0; j <= i; ++j) {
      const double rest = m[i * d + j] - dot(&m[i * d], &m[j * d], j);
      m[i * d + j] = i == j ? std::sqrt(rest) : rest / m[j * d + j];
    }
    b[i] = (b[i] - dot(&m[i * d], b.data(), i)) / m[i * d + i];
  }
  for (std::size_t i = d; i-- > 0;) {
    for (std::size_t j = i + 1; j < d; ++j) b[i] -= m[j * d + i] * b[j];
    b[i] /= m[i * d + i];
  }
  return b;
}

/// b += scale * a x, of one worker or of all.
void add_product(Vector& b, std::size_t first, std::size_t rows, double scale, const Vector& a,
                 const double* x) {
  for (std::size_t i = first; i < first + rows; ++i) b[i] += scale * dot(&a[i * d], x, d);
}

}  // namespace

Problem::Problem(const ProblemOptions& options) : workers_(options.workers) {
  const std::size_t n = static_cast<std::size_t>(workers_), rows = n * d;
  Draws draws(options.seed);
  a_ = draws.normal(rows * d);
  Vector values(d);
  for (std::size_t k = 0; k < d; ++k) {
    values[k] = 0.5 + 0.5 * static_cast<double>(k) / static_cast<double>(d - 1);
  }
  for (std::size_t i = 0; i < n; ++i) set_singular_values(&a_[i * d * d], values);
  // The workers' own optima, as far apart as zeta2 asks, about a common one at 0.
  const Vector directions = draws.normal(rows);
  b_.assign(rows, 0);
  double scale = 1, low = 0, high = 0, reached = 0;
  while (std::abs(reached - options.zeta2) > 1e-5) {
    std::fill(b_.begin(), b_.end(), 0.0);
    for (std::size_t i = 0; i < n; ++i) add_product(b_, i * d, d, scale, a_, &directions[i * d]);
    add_product(b_, 0, rows, -1, a_, optimum().data());
    reached = zeta2(optimum());
    (reached < options.zeta2 ? low : high) = scale;
    scale = high == 0 ? 2 * scale : (low + high) / 2;
  }
  // Which is moved.
  const Vector direction = draws.normal(d);
  const double length = std::sqrt(dot(direction.data(), direction.data(), d));
  add_product(b_, 0, rows, options.r0 / length, a_, direction.data());
  least_ = value(optimum());
}

void Problem::gradient(int worker, std::span<const double> x, std::span<double> out) const {
  std::fill(out.begin(), out.end(), 0.0);
  const std::size_t first = static_cast<std::size_t>(worker) * d;
  for (std::size_t i = first; i < first + d; ++i) {
    const double residual = dot(&a_[i * d], x.data(), d) - b_[i];
    for (std::size_t j = 0; j < d; ++j) out[j] += residual * a_[i * d + j];
  }
}

double Problem::error(std::span<const double> x) const { return value(x) - least_; }

double Problem::value(std::span<const double> x) const {
  double sum = 0;
  for (std::size_t i = 0; i < b_.size(); ++i) {
    const double residual = dot(&a_[i * d], x.data(), d) - b_[i];
    sum += residual * residual;
  }
  return sum / workers_;
}

Vector Problem::optimum() const {
  Vector square(d * d), right(d);
  for (std::size_t i = 0; i < b_.size(); ++i) {
    const double* row = &a_[i * d];
    for (std::size_t j = 0; j < d; ++j) {
      right[j] += row[j] * b_[i];
      for (std::size_t k = 0; k < d; ++k) square[j * d + k] += row[j] * row[k];
    }
  }
  return solve(square, right);
}

double Problem::zeta2(std::span<const double> at) const {
  double sum = 0;
  Vector g(d);
  for (int worker = 0; worker < workers_; ++worker) {
    gradient(worker, at, g);
    sum += dot(g.data(), g.data(), d);
  }
  return sum / workers_;
}

}  // namespace slip::relaysum
