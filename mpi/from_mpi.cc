#include <fmt/format.h>
#include <mpi.h>

#include <array>
#include <memory>
#include <string>
#include <utility>

#include "slipstream/base/error.h"
#include "slipstream/c_api/bridge.h"
#include "slipstream/mpi/slipstream_mpi.h"
#include "slipstream/runtime/invitation.h"
#include "slipstream/runtime/launcher.h"
#include "slipstream/runtime/world.h"

namespace slip {
namespace {

constexpr std::size_t max_text = 512;

void check(int error, const char* what) {
  if (error == MPI_SUCCESS) return;
  std::array<char, MPI_MAX_ERROR_STRING> text{};
  int length = 0;
  MPI_Error_string(error, text.data(), &length);
  throw Error(Code::bootstrap_failed, fmt::format("{}: {}", what, text.data()));
}

bool are_on_one_host(MPI_Comm communicator, int size) {
  MPI_Comm host = MPI_COMM_NULL;
  check(MPI_Comm_split_type(communicator, MPI_COMM_TYPE_SHARED, 0, MPI_INFO_NULL, &host),
        "MPI_Comm_split_type");
  int local_size = 0;
  check(MPI_Comm_size(host, &local_size), "MPI_Comm_size");
  check(MPI_Comm_free(&host), "MPI_Comm_free");
  // Another rank may see another host; rank 0's view is what its invitation is for.
  return local_size == size;
}

/// Rank 0's text, or nothing if it has none to give.
std::string broadcast(MPI_Comm communicator, const std::string& text) {
  std::array<char, max_text> buffer{};
  text.copy(buffer.data(), buffer.size() - 1);
  check(MPI_Bcast(buffer.data(), static_cast<int>(buffer.size()), MPI_CHAR, 0, communicator),
        "MPI_Bcast");
  return buffer.data();
}

std::unique_ptr<Bootstrap> meet(MPI_Comm communicator, const WorldOptions& options) {
  int is_up = 0;
  MPI_Initialized(&is_up);
  if (is_up == 0) throw Error(Code::invalid_argument, "from_mpi comes after MPI_Init");
  int rank = 0;
  int size = 0;
  check(MPI_Comm_rank(communicator, &rank), "MPI_Comm_rank");
  check(MPI_Comm_size(communicator, &size), "MPI_Comm_size");
  const bool on_one_host = are_on_one_host(communicator, size);
  if (rank != 0) {
    const std::string text = broadcast(communicator, "");
    if (text.empty()) {
      throw Error(Code::bootstrap_failed,
                  fmt::format("rank {}: rank 0 cannot open a rendezvous; see its output", rank), 0);
    }
    return accept_invitation(parse_invitation(text), rank, size, options.join_timeout);
  }
  try {
    auto bootstrap = open_rendezvous(size, on_one_host, options.join_timeout);
    broadcast(communicator, to_text(invitation_to(*bootstrap)));
    return bootstrap;
  } catch (...) {
    broadcast(communicator, "");
    throw;
  }
}

}  // namespace

template <class Communicator>
World World::from_mpi(Communicator communicator, const WorldOptions& options) {
  WorldOptions of_the_job = options;
  of_the_job.join_timeout = join_timeout(options.join_timeout);
  return connect(meet(communicator, of_the_job), of_the_job);
}

template __attribute__((visibility("default"))) World World::from_mpi(MPI_Comm,
                                                                      const WorldOptions&);

}  // namespace slip

__attribute__((visibility("default"))) slip_status slip_world_from_mpi(
    MPI_Comm communicator, const slip_world_options* options, slip_world** world) {
  return slip::guarded([&] {
    if (world == nullptr) throw slip::Error(slip::Code::invalid_argument, "world is NULL");
    *world = nullptr;
    *world = slip::to_c(slip::World::from_mpi(communicator, slip::from_c(options)));
  });
}
