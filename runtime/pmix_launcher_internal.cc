#include "slipstream/runtime/pmix_launcher_internal.h"

#include <dlfcn.h>
#include <fmt/format.h>
#include <pmix.h>

#include <chrono>
#include <future>
#include <memory>
#include <string>
#include <string_view>
#include <thread>
#include <utility>

#include "slipstream/base/error.h"
#include "slipstream/runtime/invitation.h"
#include "slipstream/runtime/posix_internal.h"

namespace slip {
namespace {

using namespace std::chrono_literals;

/// For what the launcher knows already and need not wait for.
constexpr Duration local_timeout = 10s;
constexpr Duration retry_pause = 20ms;

/// What is used of libpmix, loaded when the first worker finds that PMIx has started it.
struct Library {
#define SLIP_PMIX_FUNCTIONS(X) \
  X(PMIx_Commit)               \
  X(PMIx_Error_string)         \
  X(PMIx_Finalize)             \
  X(PMIx_Get_nb)               \
  X(PMIx_Get_version)          \
  X(PMIx_Init)                 \
  X(PMIx_Put)
#define SLIP_PMIX_DECLARE(name) decltype(&::name) name = nullptr;
  SLIP_PMIX_FUNCTIONS(SLIP_PMIX_DECLARE)
#undef SLIP_PMIX_DECLARE

  std::string missing;
};

Library load() {
  Library result;
  void* handle = dlopen("libpmix.so.2", RTLD_NOW | RTLD_GLOBAL);  // its own plug-ins look into it
  if (handle == nullptr) {
    result.missing = fmt::format("libpmix.so.2 cannot be loaded ({}); install libpmix2", dlerror());
    return result;
  }
#define SLIP_PMIX_FIND(name)                                                   \
  result.name = reinterpret_cast<decltype(result.name)>(dlsym(handle, #name)); \
  if (result.name == nullptr)                                                  \
    result.missing = "libpmix.so.2 has no " #name "; install a newer PMIx";
  SLIP_PMIX_FUNCTIONS(SLIP_PMIX_FIND)
#undef SLIP_PMIX_FIND
  return result;
}

const Library& library() {
  static const Library loaded = load();
  return loaded;
}

[[noreturn]] void fail(const char* what, pmix_status_t status) {
  throw Error(status == PMIX_ERR_TIMEOUT ? Code::timeout : Code::bootstrap_failed,
              fmt::format("PMIx: {}: {}", what, library().PMIx_Error_string(status)));
}

pmix_proc_t process(const pmix_proc_t& of_job, pmix_rank_t rank) {
  pmix_proc_t result = of_job;
  result.rank = rank;
  return result;
}

/// What a look-up found. The callback may come after the caller has given up, so that both own it.
struct Found {
  pmix_status_t status = PMIX_ERROR;
  std::string text{};
  std::uint32_t number = 0;
};
using Promise = std::promise<Found>;

void take(pmix_status_t status, pmix_value_t* value, void* context) {
  const std::unique_ptr<std::shared_ptr<Promise>> promise(
      static_cast<std::shared_ptr<Promise>*>(context));
  Found found{status};
  if (status == PMIX_SUCCESS && value != nullptr) {
    if (value->type == PMIX_STRING && value->data.string != nullptr) {
      found.text = value->data.string;
    } else if (value->type == PMIX_UINT32) {
      found.number = value->data.uint32;
    } else if (value->type == PMIX_UINT16) {
      found.number = value->data.uint16;
    } else {
      found.status = PMIX_ERR_BAD_PARAM;
    }
  }
  (*promise)->set_value(std::move(found));
}

Found look_up(const pmix_proc_t& of, const char* key, Duration timeout) {
  auto promise = std::make_shared<Promise>();
  auto found = promise->get_future();
  auto context = std::make_unique<std::shared_ptr<Promise>>(promise);
  const pmix_status_t status = library().PMIx_Get_nb(&of, key, nullptr, 0, take, context.get());
  if (status != PMIX_SUCCESS) return {status};
  context.release();  // the callback's now
  if (found.wait_for(timeout) != std::future_status::ready) return {PMIX_ERR_TIMEOUT};
  return found.get();
}

/// Some launchers wait until the other has published the key, and some do not find it.
Found look_up_until(Time deadline, const pmix_proc_t& of, const std::string& key) {
  for (;;) {
    Found found = look_up(of, key.c_str(), deadline - steady_now());
    const bool is_early = found.status == PMIX_ERR_NOT_FOUND;
    if (!is_early || steady_now() + retry_pause >= deadline) return found;
    std::this_thread::sleep_for(retry_pause);
  }
}

class PmixLauncher final : public Launcher {
 public:
  PmixLauncher() {
    if (const auto status = library().PMIx_Init(&self_, nullptr, 0); status != PMIX_SUCCESS) {
      fail("this worker cannot reach its launcher (PMIx_Init)", status);
    }
    const pmix_proc_t job = process(self_, PMIX_RANK_WILDCARD);
    const Found size = look_up(job, PMIX_JOB_SIZE, local_timeout);
    if (size.status != PMIX_SUCCESS) {
      library().PMIx_Finalize(nullptr, 0);
      fail("the launcher does not say how many workers it has started", size.status);
    }
    size_ = static_cast<int>(size.number);
    // Not all launchers say it; then other hosts are thought possible.
    local_size_ = static_cast<int>(look_up(job, PMIX_LOCAL_SIZE, local_timeout).number);
  }
  ~PmixLauncher() override { library().PMIx_Finalize(nullptr, 0); }
  PmixLauncher(const PmixLauncher&) = delete;
  PmixLauncher& operator=(const PmixLauncher&) = delete;

  int rank() const override { return static_cast<int>(self_.rank); }
  int size() const override { return size_; }
  std::string describe() const override {
    const std::string_view version = library().PMIx_Get_version();  // "OpenPMIx 4.2.2 (...)"
    return fmt::format("PMIx ({}), job {}", version.substr(0, version.find(" (")), self_.nspace);
  }
  bool reports_failures() const override { return false; }

  std::unique_ptr<Bootstrap> join(Duration timeout) override {
    const std::string key = fmt::format("slipstream.rendezvous.{}", joined_++);
    if (rank() != 0) {
      const Found invitation = look_up_until(deadline_after(timeout), process(self_, 0), key);
      if (invitation.status != PMIX_SUCCESS) {
        fail("rank 0 does not say where the workers meet; see its output", invitation.status);
      }
      return accept_invitation(parse_invitation(invitation.text), rank(), size_, timeout);
    }
    auto bootstrap = open_rendezvous(size_, local_size_ == size_, timeout);
    std::string text = to_text(invitation_to(*bootstrap));
    pmix_value_t value{};
    value.type = PMIX_STRING;
    value.data.string = text.data();
    auto status = library().PMIx_Put(PMIX_GLOBAL, key.c_str(), &value);
    if (status == PMIX_SUCCESS) status = library().PMIx_Commit();
    if (status != PMIX_SUCCESS) fail("rank 0 cannot tell the others where it waits", status);
    return bootstrap;
  }

 private:
  pmix_proc_t self_{};
  int size_ = 0;
  int local_size_ = 0;
  int joined_ = 0;  // worlds, of which a process may have several, in the same order as others
};

}  // namespace

std::string pmix_unavailable() { return library().missing; }

std::shared_ptr<Launcher> pmix_launcher() {
  if (const std::string why = pmix_unavailable(); !why.empty()) {
    throw Error(Code::not_supported,
                fmt::format("PMIx has started this worker (PMIX_NAMESPACE is set), but {}", why));
  }
  // Until the process ends: PMIx takes leave once.
  static const auto launcher = std::make_shared<PmixLauncher>();
  if (launcher->size() == 1) return nullptr;
  return launcher;
}

}  // namespace slip
