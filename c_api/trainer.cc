#include "slipstream/trainer/trainer.h"

#include <fmt/format.h>

#include <sstream>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "slipstream/c_api/handles_internal.h"

using slip::guarded;
using slip::c_api::given;

struct slip_trainer {
  slip::Trainer trainer;
  slip::Status not_begun = {};  // why the loop did not begin
};

namespace {

std::vector<std::string> words_of(const char* text) {
  std::istringstream stream(slip::c_api::text_or(text, ""));
  std::vector<std::string> words;
  for (std::string word; stream >> word;) words.push_back(word);
  return words;
}

/// "a=1 b=2"; `what` is the field.
std::vector<std::pair<std::string, std::string>> pairs_of(const char* text, std::string_view what) {
  std::vector<std::pair<std::string, std::string>> pairs;
  for (const std::string& word : words_of(text)) {
    const std::size_t equals = word.find('=');
    if (equals == 0 || equals == word.npos) {
      throw slip::Error(slip::Code::invalid_argument,
                        fmt::format("{}: '{}' is not name=value", what, word));
    }
    pairs.emplace_back(word.substr(0, equals), word.substr(equals + 1));
  }
  return pairs;
}

/// The caller's array, whose elements are as large as the first says.
std::vector<slip::Parameter> parameters_of(const slip_parameter* parameters, size_t parts) {
  std::vector<slip::Parameter> result;
  const auto init = [](slip_parameter* p, size_t) {
    *p = {sizeof *p, nullptr, 0, SLIP_FLOAT32, 0};
  };
  const auto* at = reinterpret_cast<const std::byte*>(&given(parameters, "parameters"));
  for (size_t i = 0; i < parts; ++i, at += parameters->size) {
    const slip_parameter part = slip::c_api::read<slip_parameter>(
        reinterpret_cast<const slip_parameter*>(at), init, "slip_parameter");
    if (part.size != parameters->size) {
      throw slip::Error(slip::Code::invalid_argument,
                        fmt::format("slip_parameter.size is {} in the first and {} in another",
                                    parameters->size, part.size));
    }
    result.push_back({part.data, part.count, slip::c_api::dtype_of(part.dtype),
                      slip::c_api::device_of(part.device, "slip_parameter")});
  }
  return result;
}

std::unique_ptr<slip::ProtocolConfig> protocol_of(const slip_trainer_options& options) {
  const std::string name = slip::c_api::text_or(options.protocol, "hop");
  auto protocol = slip::make_protocol_config(name);
  slip::Options table = protocol->options();
  for (const auto& [key, value] : pairs_of(options.settings, "settings")) {
    if (table.find(key) == nullptr) {
      throw slip::Error(slip::Code::invalid_argument,
                        slip::unknown_name(name + " option", key, table.names()));
    }
    table.set(key, value);
  }
  return protocol;
}

slip::TrainerOptions trainer_options(const slip_trainer_options& o, const slip::World& world) {
  slip::TrainerOptions result;
  result.graph = slip::c_api::text_or(o.graph, "ring");
  if (o.weights != nullptr) result.weights = slip::parse_weights(o.weights);
  result.learning_rate = o.learning_rate;
  result.momentum = o.momentum;
  result.weight_decay = o.weight_decay;
  if (o.schedule != nullptr) {
    result.schedule = [call = o.schedule, context = o.context](slip::Iteration iteration) {
      return call(iteration, context);
    };
  }
  result.iterations = std::min<uint64_t>(o.iterations, slip::max_iteration);
  if (o.seconds > 0) result.time_limit = slip::from_seconds(o.seconds);
  if (o.target_metric != nullptr) {
    const std::string metric = o.target_metric;
    if (metric != "loss" && metric != "accuracy") {
      throw slip::Error(slip::Code::invalid_argument,
                        fmt::format("target_metric is '{}'; allowed are loss, accuracy", metric));
    }
    result.target = slip::Target{.metric = metric, .value = o.target_value};
  }
  if (o.evaluate_every > 0) {
    given(o.evaluate, "evaluate");
    result.evaluate_every = o.evaluate_every;
    result.evaluate = [call = o.evaluate, context = o.context](slip::ConstVectorView model) {
      slip_evaluation found{0, -1};
      call(model.data, &found, context);
      slip::Evaluation evaluation{.loss = found.loss, .accuracy = {}};
      if (found.accuracy >= 0) evaluation.accuracy = found.accuracy;
      return evaluation;
    };
  }
  result.heterogeneity = slip::Heterogeneity({.compute = slip::c_api::text_or(o.compute, ""),
                                              .slow = words_of(o.slow),
                                              .drop = "",
                                              .workers = world.size(),
                                              .seed = o.seed});
  result.agreed = pairs_of(o.agreed, "agreed");
  result.seed = o.seed;
  result.own_start = o.own_start != 0;
  result.stream = o.stream;
  return result;
}

}  // namespace

void slip_trainer_options_init(slip_trainer_options* options, size_t size) {
  const slip::TrainerOptions defaults;
  slip_trainer_options o{};
  o.protocol = "hop";
  o.settings = "";
  o.graph = "ring";
  o.learning_rate = defaults.learning_rate;
  o.iterations = UINT64_MAX;
  o.agreed = "";
  o.seed = defaults.seed;
  slip::c_api::write(o, options, size);
}

slip_status slip_trainer_create(slip_world* world, const slip_parameter* parameters, size_t parts,
                                const slip_trainer_options* options, slip_trainer** trainer) {
  return guarded([&] {
    given(trainer, "trainer") = nullptr;
    const slip::World& w = *given(world, "world").world;
    const slip_trainer_options o =
        slip::c_api::read(options, slip_trainer_options_init, "slip_trainer_options");
    *trainer = new slip_trainer{
        slip::Trainer(w, parameters_of(parameters, parts), protocol_of(o), trainer_options(o, w))};
  });
}

void slip_trainer_free(slip_trainer* trainer) { delete trainer; }

int slip_trainer_running(slip_trainer* trainer) {
  bool running = false;
  const slip_status status =
      guarded([&] { running = given(trainer, "trainer").trainer.running(); });
  if (status != SLIP_OK && trainer != nullptr) trainer->not_begun = slip::c_api::last_failure();
  return running ? 1 : 0;
}

slip_status slip_trainer_status(const slip_trainer* trainer) {
  return guarded([&] {
    const slip_trainer& t = given(trainer, "trainer");
    return t.not_begun ? t.trainer.status() : t.not_begun;
  });
}

void* slip_trainer_parameters(const slip_trainer* trainer) {
  return trainer != nullptr ? trainer->trainer.parameters().data : nullptr;
}

void* slip_trainer_gradient(const slip_trainer* trainer) {
  return trainer != nullptr ? trainer->trainer.gradient().data : nullptr;
}

size_t slip_trainer_count(const slip_trainer* trainer) {
  return trainer != nullptr ? trainer->trainer.parameters().count : 0;
}

slip_status slip_trainer_step(slip_trainer* trainer, void* gradient) {
  return guarded([&] {
    slip::Trainer& t = given(trainer, "trainer").trainer;
    given(static_cast<std::byte*>(gradient), "gradient");
    const slip::VectorView x = t.parameters();
    return t.step(slip::VectorView{gradient, x.count, x.dtype, x.device});
  });
}

slip_status slip_trainer_step_with(slip_trainer* trainer, void (*apply)(void*, size_t, void*),
                                   void* context) {
  return guarded([&] {
    given(apply, "apply");
    return given(trainer, "trainer").trainer.step([&](slip::VectorView x) {
      apply(x.data, x.count, context);
    });
  });
}

slip_status slip_trainer_average(slip_trainer* trainer) {
  return guarded([&] { given(trainer, "trainer").trainer.average(); });
}

void slip_trainer_stop(slip_trainer* trainer) {
  if (trainer != nullptr) trainer->trainer.stop();
}

slip_status slip_trainer_save(const slip_trainer* trainer, const char* path) {
  return guarded([&] { given(trainer, "trainer").trainer.save(&given(path, "path")); });
}

slip_status slip_trainer_load(slip_trainer* trainer, const char* path) {
  return guarded([&] { given(trainer, "trainer").trainer.load(&given(path, "path")); });
}

uint64_t slip_trainer_iteration(const slip_trainer* trainer) {
  return trainer != nullptr ? trainer->trainer.iteration() : 0;
}

uint64_t slip_trainer_done(const slip_trainer* trainer) {
  return trainer != nullptr ? trainer->trainer.iterations_done() : 0;
}

double slip_trainer_elapsed(const slip_trainer* trainer) {
  return trainer != nullptr ? slip::to_seconds(trainer->trainer.elapsed()) : 0;
}
