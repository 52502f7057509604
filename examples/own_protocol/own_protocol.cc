// A protocol of one's own, used without being registered. docs/add-a-protocol.md goes through it.
#include <cstdio>

#include "slipstream/slipstream.hpp"

namespace slip {

/// Local SGD: everybody steps alone, and every `period` iterations all take the mean model.
struct LocalSgd {
  static constexpr std::string_view name = "local_sgd";
  static constexpr std::string_view summary = "local steps, and a mean of all from time to time";

  int period = 4;  // iterations from one mean to the next

  Options describe();
  void validate(const RunShape& shape) const;
  std::size_t memory(const RunShape& shape) const;
  std::unique_ptr<Protocol> make(const Run& run) const;
};

namespace {

class LocalSgdProtocol final : public Protocol {
 public:
  LocalSgdProtocol(const Run& run, const LocalSgd& options)
      : run_(run),
        period_(static_cast<Iteration>(options.period)),
        all_(run.world, run.name + "/models", run.x.count, run.x.dtype,
             {.wait = [&run](FunctionRef<bool()> condition, std::string_view what) {
               return run.wait(condition, what);
             }}) {}

  Status enter(Iteration) override { return {}; }

  Status step(Iteration k, const GradientStep& gradient, Iteration* next) override {
    *next = k + 1;
    run_.timed(SpanKind::apply, [&] { gradient.apply(); });
    return *next % period_ == 0 ? all_.mean(run_.x) : Status();
  }

 private:
  const Run& run_;
  const Iteration period_;
  AllReduce all_;
};

}  // namespace

Options LocalSgd::describe() {
  return Options().add("period", period, "iterations from one mean to the next",
                       Range::at_least(1));
}

void LocalSgd::validate(const RunShape&) const {
  if (period < 1) throw Error(Code::invalid_argument, "local_sgd: period is at least 1");
}

std::size_t LocalSgd::memory(const RunShape& shape) const {
  return AllReduce::memory(shape.graph.size(), shape.parameters, shape.dtype);
}

std::unique_ptr<Protocol> LocalSgd::make(const Run& run) const {
  return std::make_unique<LocalSgdProtocol>(run, *this);
}

}  // namespace slip

// f_i(x) = (x - i)^2 / 2 at worker i of four: all together are best off at 1.5.
int main() {
  try {
    slip::launch(4, [](slip::World& world) {
      double x = 0;
      slip::Trainer trainer(world, {{&x, 1, slip::Dtype::float64}}, slip::LocalSgd{.period = 5},
                            {.learning_rate = 0.01, .iterations = 2000});
      while (trainer.running()) {
        trainer.gradient().as<double>()[0] = x - world.rank();
        trainer.step(trainer.gradient()).throw_if_failed();
      }
      trainer.average();
      if (world.rank() == 0) std::printf("x = %.2f\n", x);
    });
  } catch (const slip::Error& error) {
    std::fprintf(stderr, "own_protocol: %s\n", error.what());
    return 1;
  }
}
