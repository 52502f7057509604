#include "settings.h"

#include "stand_in_setting.h"

namespace fake_nccl {
using slip::testing::read_setting;

const Settings& settings() {
  static const Settings known = [] {
    Settings result;
    read_setting("FAKE_NCCL_VERSION", &result.version);
    read_setting("FAKE_NCCL_INIT_HANGS", &result.init_hangs);
    read_setting("FAKE_NCCL_ABORT_HANGS", &result.abort_hangs);
    read_setting("FAKE_NCCL_HANG_AT", &result.hang_at);
    read_setting("FAKE_NCCL_FAIL_AT", &result.fail_at);
    return result;
  }();
  return known;
}

}  // namespace fake_nccl
