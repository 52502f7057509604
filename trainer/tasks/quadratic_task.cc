#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <utility>
#include <vector>

#include "slipstream/base/random.h"
#include "slipstream/trainer/tasks/process_cache_internal.h"
#include "slipstream/trainer/tasks/toy_tasks_internal.h"

namespace slip {
namespace {

using Vector = std::vector<double>;
using Matrix = std::vector<double>;  // square, row-major

double dot(const double* a, const double* b, std::size_t n) {
  double sum = 0;
  for (std::size_t i = 0; i < n; ++i) sum += a[i] * b[i];
  return sum;
}

Vector multiply(const Matrix& m, const Vector& x) {
  Vector y(x.size());
  for (std::size_t i = 0; i < x.size(); ++i) y[i] = dot(&m[i * x.size()], x.data(), x.size());
  return y;
}

void add(Vector& y, double a, const Vector& x) {
  for (std::size_t i = 0; i < y.size(); ++i) y[i] += a * x[i];
}

/// Near normal (the sum of twelve uniforms), by additions alone: log and cos may differ in the last
/// bit from one machine to another.
Vector normal_like(std::size_t n, Random& random) {
  Vector x(n);
  for (double& value : x) {
    value = -6;
    for (int i = 0; i < 12; ++i) value += random.uniform();
  }
  return x;
}

void normalise(double* x, std::size_t n) {
  const double length = std::sqrt(dot(x, x, n));
  for (std::size_t i = 0; i < n; ++i) x[i] /= length;
}

/// Rows that are orthonormal in random directions (Gram-Schmidt, each step done twice for
/// accuracy).
Matrix random_rotation(std::size_t n, Random& random) {
  Matrix q = normal_like(n * n, random);
  for (std::size_t i = 0; i < n; ++i) {
    double* row = &q[i * n];
    for (int pass = 0; pass < 2; ++pass) {
      for (std::size_t j = 0; j < i; ++j) {
        const double* other = &q[j * n];
        const double overlap = dot(row, other, n);
        for (std::size_t k = 0; k < n; ++k) row[k] -= overlap * other[k];
      }
      normalise(row, n);
    }
  }
  return q;
}

/// x of m x = b for a symmetric positive definite m, by Cholesky.
Vector solve(Matrix m, Vector b) {
  const std::size_t n = b.size();
  for (std::size_t i = 0; i < n; ++i) {
    for (std::size_t j = 0; j <= i; ++j) {
      const double rest = m[i * n + j] - dot(&m[i * n], &m[j * n], j);
      m[i * n + j] = i == j ? std::sqrt(rest) : rest / m[j * n + j];
    }
    b[i] = (b[i] - dot(&m[i * n], b.data(), i)) / m[i * n + i];
  }
  for (std::size_t i = n; i-- > 0;) {
    for (std::size_t j = i + 1; j < n; ++j) b[i] -= m[j * n + i] * b[j];
    b[i] /= m[i * n + i];
  }
  return b;
}

/// f_i(x) = (x - minimum)^T hessian (x - minimum) / 2, which is |A x - b|^2 / 2 with
/// hessian = A^T A; A's left rotation cancels.
struct Quadratic {
  Matrix hessian;
  Vector minimum;
};

struct Problem {
  std::vector<Quadratic> workers;
  Matrix mean_hessian;
  Vector optimum;
};

Quadratic random_quadratic(const QuadraticOptions& options, std::size_t worker) {
  const std::size_t n = options.dim;
  Random random(key({options.seed, worker}));
  const Matrix v = random_rotation(n, random);
  Quadratic quadratic{Matrix(n * n), {}};
  for (std::size_t k = 0; k < n; ++k) {
    const double step = n > 1 ? static_cast<double>(k) / static_cast<double>(n - 1) : 0;
    const double singular = options.mu + (options.l - options.mu) * step;
    for (std::size_t i = 0; i < n; ++i) {
      for (std::size_t j = 0; j < n; ++j) {
        quadratic.hessian[i * n + j] += singular * singular * v[k * n + i] * v[k * n + j];
      }
    }
  }
  quadratic.minimum = normal_like(n, random);
  return quadratic;
}

Problem make_problem(const QuadraticOptions& options) {
  const std::size_t n = options.dim;
  const double share = 1.0 / options.workers;
  Problem problem{{}, Matrix(n * n), Vector(n)};
  Vector weighted_minima(n);
  for (int i = 0; i < options.workers; ++i) {
    problem.workers.push_back(random_quadratic(options, static_cast<std::size_t>(i)));
    const Quadratic& q = problem.workers.back();
    add(problem.mean_hessian, share, q.hessian);
    add(weighted_minima, share, multiply(q.hessian, q.minimum));
  }

  // Around the common optimum of these minima the gradients scale with the minima's distances.
  const Vector centre = solve(problem.mean_hessian, weighted_minima);
  double zeta2 = 0;
  for (Quadratic& q : problem.workers) {
    add(q.minimum, -1, centre);
    const Vector gradient = multiply(q.hessian, q.minimum);
    zeta2 += share * dot(gradient.data(), gradient.data(), n);
  }
  const double scale = options.workers > 1 ? std::sqrt(options.zeta2 / zeta2) : 0;

  Random random(key({options.seed, static_cast<std::uint64_t>(options.workers), n}));
  problem.optimum = normal_like(n, random);
  normalise(problem.optimum.data(), n);
  for (double& x : problem.optimum) x *= options.r0;
  for (Quadratic& q : problem.workers) {
    for (double& x : q.minimum) x *= scale;
    add(q.minimum, 1, problem.optimum);
  }
  return problem;
}

ProcessCache<Problem> problems;

class QuadraticTask : public Task {
 public:
  QuadraticTask(const QuadraticOptions& options, int rank)
      : problem_(
            problems.get(fmt::format("{} {} {} {} {} {} {}", options.dim, options.mu, options.l,
                                     options.zeta2, options.r0, options.seed, options.workers),
                         [&] { return make_problem(options); })),
        own_(problem_->workers[static_cast<std::size_t>(rank)]),
        largest_curvature_(options.l * options.l),
        difference_(options.dim) {}

  std::size_t parameter_count() const override { return difference_.size(); }
  Dtype dtype() const override { return Dtype::float64; }
  void initialise(VectorView parameters) override {
    std::ranges::fill(parameters.as<double>(), 0.0);
  }

  double gradient(ConstVectorView parameters, Iteration, VectorView gradient) override {
    return value(own_.hessian, own_.minimum, parameters, gradient.as<double>().data());
  }

  Evaluation evaluate(ConstVectorView parameters) override {
    return {.loss = value(problem_->mean_hessian, problem_->optimum, parameters, nullptr),
            .accuracy = {}};
  }

  double default_learning_rate() const override { return 0.5 / largest_curvature_; }

 private:
  /// (x - centre)^T hessian (x - centre) / 2, and its gradient if wanted.
  double value(const Matrix& hessian, const Vector& centre, ConstVectorView parameters,
               double* gradient) {
    const auto x = parameters.as<double>();
    const std::size_t n = centre.size();
    for (std::size_t i = 0; i < n; ++i) difference_[i] = x[i] - centre[i];
    double twice = 0;
    for (std::size_t i = 0; i < n; ++i) {
      const double slope = dot(&hessian[i * n], difference_.data(), n);
      twice += difference_[i] * slope;
      if (gradient != nullptr) gradient[i] = slope;
    }
    return twice / 2;
  }

  std::shared_ptr<const Problem> problem_;
  const Quadratic& own_;
  double largest_curvature_;
  Vector difference_;
};

}  // namespace

std::unique_ptr<Task> make_quadratic_task(const QuadraticOptions& options, int rank) {
  return std::make_unique<QuadraticTask>(options, rank);
}

}  // namespace slip
