// Where NCCL was not there when this was built.

#include "slipstream/gpu/nccl.h"
#include "slipstream/gpu/nccl_communicator_internal.h"

namespace slip::gpu {

Status nccl_usable() { return {Code::not_supported, "built without NCCL (package libnccl-dev)"}; }
std::string nccl_version() { return {}; }
NcclId make_nccl_id() { throw Error(nccl_usable()); }

class NcclCommunicator::Calls {};
NcclCommunicator::NcclCommunicator(int, const NcclId&, int, int, Duration patience,
                                   std::function<void()>)
    : patience_(patience) {
  throw Error(nccl_usable());
}
NcclCommunicator::~NcclCommunicator() = default;
bool NcclCommunicator::settled() const { return true; }
Status NcclCommunicator::status() const { return nccl_usable(); }
void NcclCommunicator::mean(const void*, void*, std::size_t, std::size_t, const Stream&) {}
void NcclCommunicator::close() {}
void NcclCommunicator::abort() {}
bool NcclCommunicator::gone() const { return true; }
void NcclCommunicator::await_gone() const {}

}  // namespace slip::gpu
