#pragma once

#include <cstddef>
#include <memory>
#include <string_view>

#include "slipstream/runtime/config.h"
#include "slipstream/trainer/protocol.h"

namespace slip {

/// The parameter server (Li et al., OSDI'14), a baseline. Synchronous: the servers average the
/// gradients of all workers, who then take the same step. Asynchronous: the servers hold the model;
/// each worker sends by how much its own step changes it, and goes on from what they have then. A
/// change counts 1 / workers, so a learning rate means the same as under the other protocols.
/// Servers answer at once, also while the worker on whose progress thread they run computes.
struct ParameterServer {
  static constexpr std::string_view name = "parameter_server";
  static constexpr std::string_view summary = "gradients go through servers";

  enum class Mode { synchronous, asynchronous };
  enum class Servers {
    sharded,  // every worker serves its part of the vector: as fast as it can be
    single,   // rank 0 serves all of it: what papers compare with
  };

  Mode mode = Mode::synchronous;
  Servers servers = Servers::sharded;

  Options describe();
  void validate(const RunShape&) const {}
  std::size_t memory(const RunShape& shape) const;
  std::unique_ptr<Protocol> make(const Run& run) const;
  bool runs_on_gpu() const { return true; }
  bool free_running() const { return mode == Mode::asynchronous; }
};

}  // namespace slip
